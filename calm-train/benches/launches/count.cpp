// Counts the operations of libtorch that compute something: on a GPU each is a launch or a few. Preloaded into a program, prints them at
// its end, a line `COUNT NAME` for each. Operations that call others are left out, except those of matrix products, and so are views.
#include <ATen/record_function.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace {

const std::set<std::string> views = {
    "alias", "as_strided", "chunk", "contiguous", "detach", "detach_", "empty", "empty_like", "empty_strided", "expand",
    "expand_as", "flatten", "is_nonzero", "lift_fresh", "narrow", "permute", "requires_grad_", "reshape", "_reshape_alias", "resize_",
    "resolve_conj", "result_type", "select", "set_", "size", "slice", "split", "split_with_sizes", "squeeze", "stride", "t", "to",
    "transpose", "unbind", "unfold", "_unsafe_view", "unsqueeze", "view", "view_as", "zeros"};
const std::set<std::string> products = {"addmm", "bmm", "mm"};

struct Call {
  std::string name;
  bool has_calls;
};
thread_local std::vector<Call> open_calls;
std::mutex mutex;
std::map<std::string, long> counts;

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
  if (!open_calls.empty()) open_calls.back().has_calls = true;
  std::string name = function.name();
  open_calls.push_back({name.rfind("aten::", 0) == 0 ? name.substr(6) : "", false});
  return nullptr;
}

void end(const at::RecordFunction&, at::ObserverContext*) {
  Call call = open_calls.back();
  open_calls.pop_back();
  if (call.name.empty() || views.count(call.name) || (call.has_calls && !products.count(call.name))) return;
  std::lock_guard<std::mutex> lock(mutex);
  counts[call.name]++;
}

struct Counter {
  Counter() {
    at::addGlobalCallback(at::RecordFunctionCallback(begin, end).scopes({at::RecordScope::FUNCTION}));
  }
  ~Counter() {
    for (const auto& [name, count] : counts) fprintf(stderr, "%ld %s\n", count, name.c_str());
  }
} counter;

}  // namespace
