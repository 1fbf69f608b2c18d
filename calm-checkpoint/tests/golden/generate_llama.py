"""Writes llama.json: what transformers makes of configurations of Llama, with the frequencies of their positions.

    pip install transformers==5.24.0 torch
    python3 calm-checkpoint/tests/golden/generate_llama.py
"""

import json
import os
import sys
import tempfile

from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SMALL = {"hidden_size": 64, "num_attention_heads": 4}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
CONFIGS = [
    {},
    # SmolLM2-135M and TinyLlama, as transformers 4 wrote them.
    {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_theta": 100000, "rope_scaling": None, "tie_word_embeddings": True, "rope_interleaved": False,
        "attention_bias": False, "pretraining_tp": 1, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    },
    {
        "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "rope_scaling": None, "max_position_embeddings": 2048,
    },
    # Llama 3.1 and 3.2, in the forms of transformers 4 and 5.
    {
        **SMALL, "head_dim": 128, "max_position_embeddings": 131072, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", **LLAMA3}, "eos_token_id": [7, 8, 9],
    },
    {
        **SMALL, "head_dim": 64, "max_position_embeddings": 131072,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3, "factor": 32.0},
    },
    {
        **SMALL, "head_dim": 64, "rope_theta": 500000.0, "max_position_embeddings": 4096,
        "rope_scaling": {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": None},
    },
    # The oldest name of the type, and a base in either place.
    {**SMALL, "rope_scaling": {"type": "linear", "factor": 4.0}},
    {**SMALL, "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 20000.0},
    {**SMALL, "rope_parameters": {"rope_type": "default", "rope_theta": 30000.0}, "rope_theta": 20000.0},
    {**SMALL, "rope_parameters": {"rope_type": "default"}, "rope_theta": 20000.0},
    {
        **SMALL, "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_type": "linear", "factor": 3.0},
    },
]
KEYS = (
    "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size "
    "max_position_embeddings rms_norm_eps tie_word_embeddings bos_token_id eos_token_id"
).split()


def without_nulls(rope):
    return {key: value for key, value in rope.items() if value is not None} if rope else rope


def case(written):
    written = {key: without_nulls(value) if key.startswith("rope_") and isinstance(value, dict) else value
               for key, value in written.items()}
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump({"model_type": "llama", **written}, file)
        read = AutoConfig.from_pretrained(folder)
    rope = LlamaRotaryEmbedding(read)
    assert rope.attention_scaling == 1.0
    keys = {key: getattr(read, key) for key in KEYS}
    return {"written": written, "read": keys, "inverse_frequencies": rope.inv_freq.double().tolist()}


def main():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "llama.json")
    with open(path, "w") as file:
        json.dump({"configs": [case(written) for written in CONFIGS]}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
