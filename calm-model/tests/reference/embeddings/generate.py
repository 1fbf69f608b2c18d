"""Writes the checkpoint and the cases of this folder: which table of the embedding each part of a T5 uses, for
every set of tables that a file may hold, and what is decoded with them.

    pip install transformers==5.24.0 torch==2.11.0 && python generate.py

model.safetensors holds all four tables; a case is a copy of it with some of them. aliased.safetensors is the
same network with a single table, as safetensors.torch.save_model writes modules that share one.
"""

import itertools
import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file, save_model
from transformers import T5Config, T5ForConditionalGeneration

FOLDER = Path(__file__).parent
TABLES = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]
SOURCES = [[5, 9, 13, 7, 1], [21, 4, 1]]
GREEDY = {"max_new_tokens": 8, "do_sample": False, "num_beams": 1}


def generate(model):
    outputs = []
    for source in SOURCES:
        ids = model.generate(torch.tensor([source]), use_cache=False, **GREEDY)
        outputs.append(ids[0, 1:].tolist())
    return outputs


def load(tensors, config):
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder) / "model.safetensors", {"format": "pt"})
        config.save_pretrained(folder)
        return T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float64).eval()


def main():
    torch.manual_seed(0)
    config = T5Config(
        d_model=8,
        d_kv=4,
        d_ff=16,
        num_layers=1,
        num_decoder_layers=2,
        num_heads=2,
        vocab_size=40,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        initializer_factor=2.0,
    )
    config.architectures = ["T5ForConditionalGeneration"]
    model = T5ForConditionalGeneration(config)
    model.eval()
    blocks = {name: tensor.clone() for name, tensor in model.state_dict().items() if name not in TABLES}
    tables = {name: torch.randn(config.vocab_size, config.d_model) for name in TABLES}
    save_file(blocks | tables, FOLDER / "model.safetensors", {"format": "pt"})
    config.save_pretrained(FOLDER)

    cases = []
    for count in range(1, len(TABLES) + 1):
        for names in itertools.combinations(TABLES, count):
            loaded = load(blocks | {name: tables[name] for name in names}, config)
            cases.append({"tables": names, "outputs": generate(loaded)})
    (FOLDER / "cases.json").write_text(json.dumps({"sources": SOURCES, "cases": cases}, indent=1) + "\n")

    with torch.no_grad():
        model.shared.weight.copy_(tables["decoder.embed_tokens.weight"])
    save_model(model, str(FOLDER / "aliased.safetensors"))


if __name__ == "__main__":
    main()
