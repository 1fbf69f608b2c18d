"""Writes golden.jsonl.gz: greedy outputs of llama.cpp for prompts of data/prompts, and what float64 makes of them.

    python3 generate.py SmolLM2-135M-Instruct.Q4_1.gguf [--prompts data/prompts] [--resume]

A line holds one prompt:

- `id`: task and id in data/prompts;
- `input_ids`: the prompt in the model's chat template, as llama.cpp's tokenizer reads it, control tokens recognised;
- `tokens`, `gaps`: llama.cpp's output of at most 64 tokens, the end token included, and by how much the logit of each token exceeds
  the next largest one; keys and values in f16, one thread, no flash attention, weights as they lie in the file;
- `tokens_f32`, `gaps_f32`: the same with keys and values in f32;
- `float64_tokens`, `float64_gaps`: for each place of `tokens`, after the tokens before it, the best token of an independent computation in
  float64 with the dequantised weights, and by how much its logit of llama.cpp's token exceeds the largest one of the others: negative
  where the two tokens differ.

llama.cpp rounds the inputs of each product to 8 bits, float64 does not: how far the gaps differ says what that is worth, and is printed.
Needs llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), gguf, jinja2, numpy, torch.
"""

import argparse
import ctypes
import gzip
import itertools
import json
from pathlib import Path

import gguf
import jinja2.sandbox
import llama_cpp
import numpy as np
import torch

HERE = Path(__file__).parent
PROMPTS = {"question": 34, "rewrite": 33, "summarise": 33}
MOST_TOKENS = 64
CONTEXT = 512


class LlamaCpp:
    def __init__(self, path, cache_type):
        params = llama_cpp.llama_model_default_params()
        # Products as on any machine: not those of a repacked copy, which only some processors have.
        params.use_extra_bufts = False
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = cache_type
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text):
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 1))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(ids), False, True)
        assert count >= 0
        return list(ids[:count])

    def logits(self, tokens):
        """Reads more tokens of the one sequence: the logits after the last of them."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        assert llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(array, len(tokens))) == 0
        pointer = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,)).copy()

    def greedy(self, input_ids):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        tokens, gaps, read = [], [], input_ids
        while len(tokens) < MOST_TOKENS:
            logits = self.logits(read)
            token = int(logits.argmax())
            tokens.append(token)
            gaps.append(gap(logits, token))
            if llama_cpp.llama_vocab_is_eog(self.vocab, token):
                break
            read = [token]
        return tokens, gaps


def gap(logits, token):
    """By how much a token's logit exceeds the largest of the others."""
    others = np.delete(logits, token)
    return float(logits[token] - others.max())


class Float64:
    """A Llama network of a GGUF file, with its rows of q and k as the file has them: pairs of neighbours rotate."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        value = {key: field.contents() for key, field in reader.fields.items() if key.startswith("llama.")}
        self.layers = value["llama.block_count"]
        self.heads = value["llama.attention.head_count"]
        self.key_heads = value["llama.attention.head_count_kv"]
        self.epsilon = value["llama.attention.layer_norm_rms_epsilon"]
        width = value["llama.rope.dimension_count"]
        powers = torch.arange(0, width, 2, dtype=torch.float64) / width
        self.frequencies = value["llama.rope.freq_base"] ** -powers
        self.weights = {
            tensor.name: torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=torch.float64)
            for tensor in reader.tensors
        }

    def norm(self, x, name):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.epsilon) * self.weights[name]

    def rotate(self, x):
        # x: [positions, heads, width]
        angles = torch.arange(len(x), dtype=torch.float64)[:, None] * self.frequencies
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)

    def logits(self, tokens, last):
        """The logits after each of the last tokens of a sequence."""
        weights, count = self.weights, len(tokens)
        x = weights["token_embd.weight"][tokens]
        mask = torch.ones(count, count, dtype=torch.bool).tril()
        for layer in range(self.layers):
            name = f"blk.{layer}."
            h = self.norm(x, name + "attn_norm.weight")
            q = self.rotate((h @ weights[name + "attn_q.weight"].T).view(count, self.heads, -1))
            k = self.rotate((h @ weights[name + "attn_k.weight"].T).view(count, self.key_heads, -1))
            v = (h @ weights[name + "attn_v.weight"].T).view(count, self.key_heads, -1)
            group = self.heads // self.key_heads
            keys, values = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
            scores = torch.einsum("qhd,khd->hqk", q, keys) / q.shape[-1] ** 0.5
            shares = scores.masked_fill(~mask, -torch.inf).softmax(-1)
            read = torch.einsum("hqk,khd->qhd", shares, values).flatten(1)
            x = x + read @ weights[name + "attn_output.weight"].T
            h = self.norm(x, name + "ffn_norm.weight")
            gate = torch.nn.functional.silu(h @ weights[name + "ffn_gate.weight"].T)
            x = x + (gate * (h @ weights[name + "ffn_up.weight"].T)) @ weights[name + "ffn_down.weight"].T
        head = weights.get("output.weight", weights["token_embd.weight"])
        return self.norm(x[-last:], "output_norm.weight") @ head.T

    def gaps(self, input_ids, tokens):
        """Its gaps of the tokens of an output, and the best token at each place."""
        after = self.logits(input_ids + tokens[:-1], len(tokens)).numpy()
        return [gap(row, token) for row, token in zip(after, tokens)], after.argmax(-1).tolist()


def prompts(folder, template):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(template)
    tasks = []
    for task, count in PROMPTS.items():
        with gzip.open(folder / task / "test.jsonl.gz", "rt", encoding="utf-8") as file:
            tasks.append([(f"{task}/{example['id']}", example) for example, _ in zip(map(json.loads, file), range(count))])
    # In turns, so that a part of them has all tasks.
    for name, example in filter(None, itertools.chain.from_iterable(itertools.zip_longest(*tasks))):
        yield name, template.render(messages=example["messages"], add_generation_prompt=True)


def report(cases):
    llama = np.concatenate([case["gaps"] for case in cases])
    float64 = np.concatenate([case["float64_gaps"] for case in cases])
    difference = np.abs(llama - float64)
    other = float64 < 0
    print(f"{len(cases)} outputs, {len(llama)} tokens")
    print(f"{sum(case['tokens_f32'] == case['tokens'] for case in cases)} outputs are the same with keys and values in f32")
    print(f"after the same tokens float64 takes another token {other.sum()} times, where llama.cpp's gap is at most "
          f"{llama[other].max(initial=0):.3f}")
    quantiles = np.quantile(difference, [0.5, 0.9, 0.99, 0.999, 1])
    print("gaps of float64 and llama.cpp differ by (50, 90, 99, 99.9, 100 %):", *np.round(quantiles, 3))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=Path, default=HERE.parents[2] / "data/prompts")
    parser.add_argument("--output", type=Path, default=HERE / "golden.jsonl.gz")
    parser.add_argument("--resume", action="store_true", help="keep the prompts that the output has")
    arguments = parser.parse_args()
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    f16 = LlamaCpp(arguments.model, llama_cpp.GGML_TYPE_F16)
    f32 = LlamaCpp(arguments.model, llama_cpp.GGML_TYPE_F32)
    float64 = Float64(arguments.model)
    template = gguf.GGUFReader(arguments.model).fields["tokenizer.chat_template"].contents()
    done = {}
    if arguments.resume:
        with gzip.open(arguments.output, "rt") as file:
            done = {case["id"]: case for case in map(json.loads, file)}
    cases = []
    for name, text in prompts(arguments.prompts, template):
        input_ids = f16.tokenize(text)
        if name in done and done[name]["input_ids"] == input_ids:
            cases.append(done[name])
            continue
        tokens, gaps = f16.greedy(input_ids)
        tokens_f32, gaps_f32 = f32.greedy(input_ids)
        float64_gaps, float64_tokens = float64.gaps(input_ids, tokens)
        cases.append({
            "id": name, "input_ids": input_ids, "tokens": tokens, "gaps": np.round(gaps, 4).tolist(),
            "tokens_f32": tokens_f32, "gaps_f32": np.round(gaps_f32, 4).tolist(),
            "float64_tokens": float64_tokens, "float64_gaps": np.round(float64_gaps, 4).tolist(),
        })
        print(name, len(input_ids), len(tokens), tokens == tokens_f32, tokens == float64_tokens, flush=True)
        # --resume goes on from here.
        rest = [case for case in done.values() if all(case["id"] != kept["id"] for kept in cases)]
        text = "".join(json.dumps(case, separators=(",", ":")) + "\n" for case in cases + rest)
        arguments.output.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    report(cases)


if __name__ == "__main__":
    main()
