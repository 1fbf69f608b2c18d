"""Trains two small tokenizers as T5 and Llama 2 have them, and writes them as GGUF files with SentencePiece's tokens
of some texts.

    pip install gguf sentencepiece protobuf
    python generate.py
"""

import io
import json
import pathlib

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

HERE = pathlib.Path(__file__).parent
SENTENCES = """
The decoder stops at the first layer whose confidence reaches a threshold.
Layers above are skipped, and their keys and values are computed from the state of the exit.
A calibration picks the threshold: from outputs on a calibration set it computes the least one.
In 2026 it cost 1234.50 euros, or 17 % more than in 1999.
Die Schwelle wird so gewählt, dass der Fehler höchstens delta ist; größere Werte sind sicherer.
Les couches supérieures sont sautées, et l'état de la sortie est propagé.
if x >= 3: return [y for y in range(10) if y != x]  # code
Überall naïve façade, coöperate, resume, ﬁnal ﬂow, ½ of ①.
""".strip().splitlines()
TEXTS = SENTENCES + [
    "", " ", "a", "  two  spaces   and\ttabs\nand lines\r\n\n", " leading and trailing ",
    "unseen: 語 😀 \u0416 \u00a0x\u3000y", "ﬁ ② ５ ﾊﾟ e\u0301", "1 22 333 4444", "x" * 40, "<s> no </s> token <unk> <pad>",
    "▁ underline ▁▁", "...!?\"'()[]{}<>@#$%^&*-_=+\\|/~`",
]


def train(name, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_writer=model, minloglevel=2, hard_vocab_limit=False, **options)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    size = processor.get_piece_size()
    # sentencepiece_model.proto numbers the types as llama.h does.
    types = [piece.type for piece in proto.pieces]
    writer = gguf.GGUFWriter(HERE / f"{name}.gguf", name)
    writer.add_tokenizer_model(name)
    writer.add_token_list([processor.id_to_piece(token) for token in range(size)])
    writer.add_token_scores([processor.get_score(token) for token in range(size)])
    writer.add_token_types(types)
    if name == "t5":
        writer.add_precompiled_charsmap(proto.normalizer_spec.precompiled_charsmap)
        writer.add_add_eos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return {
        "tokenizer": name,
        "texts": [{"text": text, "ids": processor.encode(text), "decoded": processor.decode(processor.encode(text))}
                  for text in TEXTS],
    }


golden = [
    train("t5", model_type="unigram", vocab_size=250, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
          normalization_rule_name="nmt_nfkc"),
    train("llama", model_type="bpe", vocab_size=500, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, byte_fallback=True,
          split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
          allow_whitespace_only_pieces=True),
]
(HERE / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
