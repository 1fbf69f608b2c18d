"""Writes v1_0/shallow_deep.json and v1_1/shallow_deep.json: decodings of these checkpoints under the rule of FREE (Bae et al.,
Fast and Robust Early-Exiting Framework, EMNLP 2023, sections 3.1 and 3.2) with a constant threshold.

    pip install numpy==2.4.6 safetensors==0.8.0 && python shallow_deep.py

All is computed in float64, and nothing is kept from one step to the next but tokens, exits and states after the
shallow layers: each deep pass takes the shallow states of all tokens so far through the deep layers, which is what the
synchronised decoding of FREE amounts to. Before anything is written, full decodings are compared with those in the
checkpoints' cases.json.
"""

import itertools
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

FOLDER = Path(__file__).parent
START, END = 0, 1
LEAST_MARGIN = 1e-3
# Tokens of the source and of the longest output.
LENGTHS = [(2, 20), (3, 9), (4, 20), (5, 20), (7, 14), (9, 20), (11, 20), (14, 20), (17, 20), (24, 12), (35, 20)]
THRESHOLDS = {
    "softmax": [0, 0.02, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1],
    "state": [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],
}


def softmax(logits):
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


def bucket(distance, bidirectional, buckets, longest):
    """The bucket of a key's position minus a query's."""
    first = 0
    if bidirectional:
        buckets //= 2
        first, distance = (buckets, distance) if distance > 0 else (0, -distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    # Transformers computes this in f32 and cuts off the fraction.
    ratio = np.log(np.float32(distance) / exact) / np.log(longest / exact)
    return first + min(exact + int(ratio * (buckets - exact)), buckets - 1)


class T5:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
        self.tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
        self.layers = self.config["num_decoder_layers"]
        self.tied = self.config["tie_word_embeddings"]

    def norm(self, name, x):
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.config["layer_norm_epsilon"])
        return x / scale * self.tensors[f"{name}.weight"]

    def linear(self, name, x):
        return x @ self.tensors[f"{name}.weight"].T

    def heads(self, x):
        """[positions, inner] to [heads, positions, d_kv]"""
        return x.reshape(len(x), self.config["num_heads"], self.config["d_kv"]).transpose(1, 0, 2)

    def attention(self, name, x, keys_of, bias):
        query, key, value = (
            self.heads(self.linear(f"{name}.{part}", of)) for part, of in [("q", x), ("k", keys_of), ("v", keys_of)]
        )
        weights = softmax(query @ key.transpose(0, 2, 1) + bias)
        # [heads, positions, d_kv] to [positions, inner]
        return self.linear(f"{name}.o", (weights @ value).transpose(1, 0, 2).reshape(len(x), -1))

    def bias(self, stack, length):
        """[heads, length, length]"""
        table = self.tensors[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        bidirectional = stack == "encoder"
        buckets = self.config["relative_attention_num_buckets"]
        longest = self.config["relative_attention_max_distance"]
        bias = np.empty((table.shape[1], length, length))
        for query in range(length):
            for key in range(length):
                hidden = stack == "decoder" and key > query
                of = table[bucket(key - query, bidirectional, buckets, longest)]
                bias[:, query, key] = -np.inf if hidden else of
        return bias

    def feed_forward(self, name, x):
        if not self.config["is_gated_act"]:
            return self.linear(f"{name}.wo", np.maximum(self.linear(f"{name}.wi", x), 0))
        gate = self.linear(f"{name}.wi_0", x)
        gate = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        return self.linear(f"{name}.wo", gate * self.linear(f"{name}.wi_1", x))

    def encode(self, source):
        x, bias = self.tensors["shared.weight"][source], self.bias("encoder", len(source))
        for layer in range(self.config["num_layers"]):
            block = f"encoder.block.{layer}.layer"
            normed = self.norm(f"{block}.0.layer_norm", x)
            x = x + self.attention(f"{block}.0.SelfAttention", normed, normed, bias)
            x = x + self.feed_forward(f"{block}.1.DenseReluDense", self.norm(f"{block}.1.layer_norm", x))
        return self.norm("encoder.final_layer_norm", x)

    def embed(self, tokens):
        return self.tensors["shared.weight"][tokens]

    def run(self, layers, x, encoded):
        """States of all positions after each of some decoder layers, which count from 1."""
        states, bias = [], self.bias("decoder", len(x))
        for layer in layers:
            block = f"decoder.block.{layer - 1}.layer"
            normed = self.norm(f"{block}.0.layer_norm", x)
            x = x + self.attention(f"{block}.0.SelfAttention", normed, normed, bias)
            normed = self.norm(f"{block}.1.layer_norm", x)
            x = x + self.attention(f"{block}.1.EncDecAttention", normed, encoded, 0)
            x = x + self.feed_forward(f"{block}.2.DenseReluDense", self.norm(f"{block}.2.layer_norm", x))
            states.append(x)
        return states

    def logits(self, state):
        normed = self.norm("decoder.final_layer_norm", state)
        if self.tied:
            return self.tensors["shared.weight"] @ (normed * self.config["d_model"] ** -0.5)
        return self.tensors["lm_head.weight"] @ normed


def best(logits):
    """The best token, how far its logit is ahead, and its margin in probability."""
    second, first = np.argsort(logits)[-2:]
    probabilities = softmax(logits)
    return int(first), logits[first] - logits[second], probabilities[first] - probabilities[second]


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def full(model, source, max_tokens):
    encoded, tokens = model.encode(source), []
    while len(tokens) < max_tokens and END not in tokens:
        states = model.run(range(1, model.layers + 1), model.embed([START, *tokens]), encoded)
        tokens.append(best(model.logits(states[-1][-1]))[0])
    return tokens


def shallow_deep(model, source, max_tokens, layers, measure, threshold):
    encoded, tokens, exits, confidences, margins = model.encode(source), [], [], [], []
    deferred = executed = 0
    waited = []
    while len(tokens) < max_tokens and END not in tokens:
        states = model.run(range(1, layers + 1), model.embed([START, *tokens]), encoded)
        executed += layers
        token, ahead, margin = best(model.logits(states[-1][-1]))
        # The cosine is of the states after the last two shallow layers.
        confidence = margin if measure == "softmax" else cosine(states[-1][-1], states[-2][-1])
        if threshold < 1:
            margins.append(abs(confidence - threshold))
        if threshold < 1 and confidence >= threshold:
            deferred += 1
            exits.append(layers)
        else:
            deep = model.run(range(layers + 1, model.layers + 1), states[-1], encoded)
            executed += (deferred + 1) * (model.layers - layers)
            waited.append(deferred)
            deferred = 0
            token, ahead, _ = best(model.logits(deep[-1][-1]))
            exits.append(model.layers)
        tokens.append(token)
        confidences.append(float(confidence))
        margins.append(ahead)
    return {
        "input_ids": source,
        "max_tokens": max_tokens,
        "policy": policy_id(layers, measure, threshold),
        "tokens": tokens,
        "exit_layers": exits,
        # With the threshold 1 nothing is tested.
        "confidence": confidences if threshold < 1 else [None] * len(tokens),
        "executed_layers": executed,
        "margin": float(min(margins)),
    }, (max(waited, default=0), deferred)


def policy_id(layers, measure, threshold):
    measure = "" if measure == "softmax" else f"-{measure}"
    return f"shallow-deep-{layers}{measure}-{threshold}"


def layers_and_threshold(policy):
    parts = policy.split("-")
    return int(parts[2]), float(parts[-1])


def check_full(model, folder):
    cases = json.loads((folder / "cases.json").read_text())["cases"]
    cases = [case for case in cases if case["policy"] == "full"]
    for case in cases:
        tokens = full(model, case["input_ids"], case["max_tokens"])
        assert tokens == case["tokens"], (case["input_ids"], tokens, case["tokens"])
    return len(cases)


def choose(candidates, count):
    """The first case of each policy's kind with each number of tokens that waited for the deep layers, the policies in
    turn: those with most tokens at both depths first. At most one case in three has all tokens at one depth."""
    by_policy = {}
    for case, waited in candidates:
        policy, exits = case["policy"], case["exit_layers"]
        shallow = exits.count(layers_and_threshold(policy)[0])
        mixed = min(shallow, len(exits) - shallow)
        by_policy.setdefault(policy, []).append((-mixed, waited, case))
    for cases in by_policy.values():
        cases.sort(key=lambda found: found[0])
    chosen, seen, uniform = [], set(), 0
    for round in itertools.count():
        for cases in by_policy.values():
            for mixed, waited, case in cases[round : round + 1]:
                layers, threshold = layers_and_threshold(case["policy"])
                kind = (layers, threshold == 1, waited, len(case["tokens"]))
                if len(chosen) == count or kind in seen or (mixed == 0 and uniform >= count // 3):
                    continue
                uniform += mixed == 0
                seen.add(kind)
                chosen.append(case)
        if round > 100 or len(chosen) == count:
            return chosen


def main():
    for name in ["v1_0", "v1_1"]:
        folder = FOLDER / name
        model = T5(folder)
        checked = check_full(model, folder)
        random = np.random.default_rng(len(name) + model.layers)
        vocabulary = model.config["vocab_size"]
        found = {"softmax": [], "state": []}
        for length, max_tokens in LENGTHS:
            source = [int(token) for token in random.integers(3, vocabulary, length)]
            for measure, thresholds in THRESHOLDS.items():
                for threshold in thresholds:
                    # The first layer has none before it to compare with.
                    for layers in range(1 if measure == "softmax" else 2, model.layers):
                        result = shallow_deep(model, source, max_tokens, layers, measure, threshold)
                        if result[0]["margin"] >= LEAST_MARGIN:
                            found[measure].append(result)
        cases = choose(found["softmax"], 24) + choose(found["state"], 6)
        (folder / "shallow_deep.json").write_text(
            '{"cases": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]}\n"
        )
        print(name, "full cases checked:", checked, "cases written:", len(cases))


if __name__ == "__main__":
    main()
