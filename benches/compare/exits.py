"""Decodes with the early exits of economize, and writes tokens, the layer at which each was read, and tokens a second as JSON lines.

    exits.py MODEL --output FILE.jsonl [--input PROMPTS.jsonl[.gz] | --cases cases.json] [--new-tokens 64] [--limit 10]
             [--policy softmax-0.9 state-0.98 ...]

MODEL is a Llama in the Hugging Face layout, or a .gguf file, whose weights transformers dequantises to f32. PROMPTS.jsonl has a line
{"id", "input_ids"} for each prompt (calm-cpu/tests/llama_cpp/golden.jsonl.gz has such lines). `cases.json` holds golden decodings with CALM's policies (`input_ids`, `max_tokens`, `policy`,
`tokens`, `exit_layers`): those with `softmax` and `state` are decoded at their own thresholds, and it prints how many are the same.

economize 0.3.2 runs all layers for the prompt's last token and takes its output from the last one; calm has an exit there. Therefore
economize gets the prompt without its last token, which is given to it as its first output. The rest is the same: keys and values of
skipped layers from the exit's state, the decay from the first output on. It exits above the threshold, calm from the threshold on.
"""

import argparse
import gzip
import json
import os
import time
from pathlib import Path

import economize
import torch
from economize.techniques.dynamic_depth.calm import CalmConfig, CalmPolicy
from transformers import AutoModelForCausalLM

POLICIES = ["full", "softmax-0.9", "softmax-0.7", "softmax-0.5", "state-0.98", "state-0.95", "state-0.9"]


class RecordedPolicy(CalmPolicy):
    """Notes the layer at which each token of a single sequence leaves; the pass over the prompt is the first one."""

    def begin_prompt(self):
        super().begin_prompt()
        self.technique.exit_layers = []

    def begin_pass(self, hidden, ctx):
        super().begin_pass(hidden, ctx)
        self.technique.exit_layers.append(self.num_layers)

    def transform(self, index, x, out, ran, ctx):
        was_out = bool(self.exited.any())
        result = super().transform(index, x, out, ran, ctx)
        if not was_out and bool(self.exited.any()):
            self.technique.exit_layers[-1] = index
        return result


class AfterFirst(economize.GreedySelector):
    """Greedy but for the first token, which is given."""

    def __init__(self, first):
        self.first = first

    def select_many(self, logits):
        best = super().select_many(logits)
        if self.first is not None:
            best = torch.full_like(best, self.first)
            self.first = None
        return best

    def __call__(self, logits, history):
        return int(self.select_many(logits[None])[0])


def load(path):
    if path.endswith(".gguf"):
        folder, name = os.path.split(os.path.abspath(path))
        return AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def configuration(policy, max_tokens):
    if policy["kind"] == "full":
        return CalmConfig(confidence="state", threshold=1.0)
    decay = policy.get("decay") or 0.0
    return CalmConfig(
        confidence=policy["measure"], threshold=policy["threshold"], decay_temperature=decay, decay_horizon=max_tokens
    )


def policy_of(name):
    if name == "full":
        return {"kind": "full"}
    measure, threshold = name.rsplit("-", 1)
    return {"kind": "calm", "measure": measure, "threshold": float(threshold)}


def comparable(case):
    """economize's classifier sees states of unit length, and its decay goes on at threshold 1, where the paper's never exits."""
    policy = case["policy"]
    if policy["kind"] == "calm" and (policy["measure"] == "classifier" or policy["threshold"] >= 1 and policy["decay"]):
        return False
    return policy["kind"] in ("full", "calm") and len(case["input_ids"]) > 1


def decode(base, policy, input_ids, max_tokens, ends):
    model = economize.apply(base, configuration(policy, max_tokens))
    technique = model.techniques["calm"]
    technique.make_policy = lambda: RecordedPolicy(technique)
    technique.exit_layers = []
    *read, last = input_ids
    start = time.perf_counter()
    result = model.decode(
        torch.tensor(read), max_tokens + 1, decoding=economize.DecodeConfig(cycle_length=1, sync_interval=1),
        selector=AfterFirst(last), stop=ends,
    )
    seconds = time.perf_counter() - start
    tokens = result.tokens.tolist()
    assert tokens[0] == last
    return tokens[1:], technique.exit_layers[1 : len(tokens)], seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--policy", nargs="+", default=POLICIES)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    base = load(arguments.model)
    ends = base.generation_config.eos_token_id
    ends = ends if isinstance(ends, int) else ends[0] if len(ends) == 1 else lambda tokens: int(tokens[-1]) in ends
    if arguments.cases:
        cases = json.loads(arguments.cases.read_text())["cases"]
        known = [case for case in cases if comparable(case)]
    else:
        with (gzip.open if arguments.input.suffix == ".gz" else open)(arguments.input, "rt", encoding="utf-8") as file:
            prompts = [json.loads(line) for line, _ in zip(file, range(arguments.limit))]
        known = [
            {"id": prompt["id"], "input_ids": prompt["input_ids"], "max_tokens": arguments.new_tokens, "policy": policy_of(name)}
            for name in arguments.policy for prompt in prompts
        ]
    results = []
    for case in known:
        tokens, layers, seconds = decode(base, case["policy"], case["input_ids"], case["max_tokens"], ends)
        results.append({**case, "economize": {"tokens": tokens, "exit_layers": layers, "seconds": round(seconds, 4)}})
    arguments.output.write_text("".join(json.dumps(result) + "\n" for result in results))
    if arguments.cases:
        same = [r for r in results if (r["tokens"], r["exit_layers"]) == (r["economize"]["tokens"], r["economize"]["exit_layers"])]
        print(f"{len(same)} of {len(results)} golden decodings have the same tokens and exit layers")
        for r in results:
            if r not in same:
                print(r["policy"], r["tokens"], r["exit_layers"], r["economize"], r["margin"])
        return
    print(f"{'policy':<14}{'layers':>8}{'tokens/s':>10}")
    for policy in dict.fromkeys(json.dumps(case["policy"]) for case in known):
        rows = [r["economize"] for r in results if json.dumps(r["policy"]) == policy]
        count = sum(len(row["tokens"]) for row in rows)
        layers = sum(sum(row["exit_layers"]) for row in rows) / count
        policy = json.loads(policy)
        name = "full" if policy["kind"] == "full" else f"{policy['measure']}-{policy['threshold']}"
        print(f"{name:<14}{layers:>8.2f}{count / sum(row['seconds'] for row in rows):>10.1f}")


if __name__ == "__main__":
    main()
