"""Writes golden.json: what transformers makes of configurations and of tokenizers that were saved after use.

    pip install transformers==5.24.0 tokenizers==0.23.3
    python3 calm-checkpoint/tests/golden/generate.py
"""

import json
import os
import sys
import tempfile

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, GenerationConfig, T5Tokenizer

TEXTS = ["a bad cab", "", "abc abc abc abc", "x", "a </s> b <pad>"]
PIECES = ["▁", "a", "b", "c", "d", "▁a", "▁b", "▁c", "ab", "ca"]


def tokenizer(first, template=True, padding=False, truncation=False, special=True):
    """A unigram tokenizer whose vocabulary begins with `first`."""
    vocab = [(token, 0.0) for token in first] + [(piece, -1.0 - i / 10) for i, piece in enumerate(PIECES)]
    made = Tokenizer(models.Unigram(vocab, unk_id=first.index("<unk>")))
    space = {"replacement": "▁", "prepend_scheme": "always"}
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**space)])
    made.decoder = decoders.Metaspace(**space)
    if special:
        made.add_special_tokens(first)
    end = ("</s>", first.index("</s>"))
    if template:
        made.post_processor = processors.TemplateProcessing(
            single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[end]
        )
    if padding:
        made.enable_padding(length=12, pad_id=first.index("<pad>"), pad_token="<pad>")
    if truncation:
        made.enable_truncation(3)
    return made


def saved(folder, made):
    """The tokenizer of transformers for T5, from nothing but the tokenizer.json of `made`."""
    made.save(os.path.join(folder, "tokenizer.json"))
    return T5Tokenizer.from_pretrained(folder, extra_ids=0)


def tokenizer_case(name, **options):
    made = tokenizer(["<pad>", "</s>", "<unk>"], **options)
    with tempfile.TemporaryDirectory() as folder:
        reader = saved(folder, made)
        ids = [reader(text)["input_ids"] for text in TEXTS]
        texts = [reader.decode(row + [0, 0], skip_special_tokens=True) for row in ids]
        return {"name": name, "file": json.loads(made.to_str()), "ids": ids, "decoded": texts}


CONFIGS = [
    {"model_type": "t5"},
    {},
    {"model_type": "mt5"},
    {"model_type": "mt5", "tie_word_embeddings": False},
    {"model_type": "t5", "tie_word_embeddings": False},
    {"model_type": "t5", "feed_forward_proj": "gated-gelu", "num_layers": 3},
    {"model_type": "t5", "d_model": 96, "num_heads": 5, "d_kv": 9, "num_layers": 2, "num_decoder_layers": 3},
    {"model_type": "t5", "eos_token_id": [1, 5], "decoder_start_token_id": 0},
    {"model_type": "t5", "num_decoder_layers": None, "layer_norm_epsilon": 1e-5},
    {"model_type": "t5", "scale_decoder_outputs": False},
]
KEYS = (
    "vocab_size d_model d_kv d_ff num_layers num_decoder_layers num_heads relative_attention_num_buckets "
    "relative_attention_max_distance layer_norm_epsilon feed_forward_proj pad_token_id eos_token_id"
).split()


def config_case(written):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            # The first checkpoints of T5 have no type, and are loaded by the class that the user names.
            json.dump({"model_type": "t5", **written}, file)
        read = AutoConfig.from_pretrained(folder)
        keys = {key: getattr(read, key) for key in KEYS}
        # T5ForConditionalGeneration scales by this flag, MT5ForConditionalGeneration never does.
        return {"written": written, "read": keys, "scaled": getattr(read, "scale_decoder_outputs", False)}


GENERATION = [
    {"eos_token_id": [1, 5], "decoder_start_token_id": 2},
    {"eos_token_id": 7, "decoder_start_token_id": 0, "pad_token_id": 0},
    {"eos_token_id": 1, "bos_token_id": 3},
]


def generation_case(written):
    """The first decoder input and the end tokens that `generate` takes (`_prepare_special_tokens`)."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "generation_config.json"), "w") as file:
            json.dump(written, file)
        read = GenerationConfig.from_pretrained(folder)
    start = read.decoder_start_token_id
    ends = read.eos_token_id
    return {
        "written": written,
        "start": read.bos_token_id if start is None else start,
        "ends": ends if isinstance(ends, list) else [ends],
    }


def main():
    cases = {
        "texts": TEXTS,
        "tokenizers": [
            tokenizer_case("as it should be"),
            tokenizer_case("padding", padding=True),
            tokenizer_case("truncation", truncation=True),
            tokenizer_case("padding and truncation", padding=True, truncation=True),
            tokenizer_case("no template", template=False),
            tokenizer_case("no special tokens", special=False),
            tokenizer_case("neither", template=False, special=False),
        ],
        "configs": [config_case(written) for written in CONFIGS],
        "generation": [generation_case(written) for written in GENERATION],
    }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.json")
    with open(path, "w") as file:
        json.dump(cases, file, ensure_ascii=False, indent=1)
        file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
