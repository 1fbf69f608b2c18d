"""Writes smollm2_llama_cpp.jsonl.gz: texts and their token ids by llama.cpp, with the vocabulary of a GGUF file.

    python3 generate.py SmolLM2-135M-Instruct.Q4_1.gguf [--root ../../..]

A line holds `text`, `ids` (control tokens read as text) and `ids_special` (control tokens recognised). Texts are made with a fixed seed
of tables below, and of lines of the bundled corpus and of this repository's sources as they are at the time: the file is what counts.
Needs llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), pyarrow.
"""

import argparse
import ctypes
import gzip
import json
import random
import subprocess
from pathlib import Path

import llama_cpp
import pyarrow.parquet

HERE = Path(__file__).parent

NOT_SPECIAL = ["<repo_name>", "<|im_start", "<|im_end|", "|im_end|>", "<im_start>", "<|IM_END|>", "</s>", "<s>", "<unk>", "[INST]", "<|end|>"]
ROLES = ["user", "assistant", "system"]
# Numbers of category Nd, Nl and No, in several scripts.
NUMBERS = ["٣", "٤٢", "۱۲۳", "१२३", "๔๕", "１２３", "²", "³", "½", "¼", "Ⅷ", "ⅻ", "①", "⑳", "〇", "𝟘𝟙", "𝟗", "൧", "᧑", "㊿", "৪৫"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🇫🇷", "❤️", "🧑‍💻", "☃", "✔️", "🏳️‍🌈", "1️⃣", "🫠"]
WORDS = [
    "the", "Debian", "package", "don't", "I'm", "we've", "they'll", "you're", "he'd", "it's", "IT'S", "DON'T", "d'eau", "l'été", "naïve",
    "coöperate", "Ångström", "Straße", "İstanbul", "ﬁne", "e\u0301te\u0301", "한국어", "日本語", "中文字符", "こんにちは", "カタカナ", "ภาษาไทย",
    "русский", "Ελληνικά", "עברית", "العربية", "हिन्दी", "தமிழ்", "ქართული", "Tiếng Việt", "𝔘𝔫𝔦", "x86_64", "C++", "foo_bar", "fooBar2Baz",
    "HTTP/1.1", "a.b.c", "user@example.org", "https://example.org/a?b=c&d=%20e#f", "libc6-dev", "0x1F", "3.14", "1e-5", "1,234,567",
    "2026-11-27", "12:34:56", "v1.2.3~rc1+dfsg-4", "10%", "$5.00", "€7", "№5", "#1", "@2x", "100km", "B2B", "h2o", "n°3", "1st", "42nd",
]
PUNCTUATION = list("!?.,;:-_()[]{}<>/\\|@#$%^&*+=~`\"'") + ["...", "…", "—", "–", "«", "»", "“", "”", "‘", "’", "->", "=>", "::", "&&", "//", "/*", "*/"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\t\t", "\u00a0", "\u2003", "\u3000", "\u2028", "\u200b", "\v", "\f", "\x85"]
CODE = [
    "def f(x):\n    return x ** 2\n", "for (int i = 0; i < 10; i++) {\n\tprintf(\"%d\\n\", i);\n}\n", "let x: Vec<u8> = vec![0; 16];\n",
    "SELECT * FROM t WHERE a = 'b' -- c\n", "<div class=\"a\">\n  <p>1 &lt; 2</p>\n</div>", "#!/bin/sh\nset -e\necho \"$1\" | sed 's/a/b/g'\n",
    "{\"a\": [1, 2.5, null], \"b\": {\"c\": true}}", "x = y  # comment\n\n\n\nclass A:\n\tpass\n", "\\begin{equation}\n  e^{i\\pi} + 1 = 0\n\\end{equation}",
    "| a | b |\n|---|---|\n| 1 | 2 |\n", "diff --git a/f b/f\n@@ -1,3 +1,4 @@\n-old\n+new\n", "if x:\n        pass\n    else:\n            pass",
]
EDGES = [
    "", " ", "\n", "a", "0", "\x00", "\x7f", "\ufeff", "\ufeffa", "\ufffd", "\ud7ff", "\U0010ffff", "'", "''", "'s", " 's", "'S", "'ll", "'lla", "s'", "I'", "'t's",
    "In 2026 I paid 1234.", "0123456789", "00000000000000000000", "1 2 3", "1\n2\n3", "1\r\n2\r\n3", "1\n", "\n1", "\n\n1", " 1", "  1", "   1\n", "1  ", "1 \n 2",
    "a1", "1a", "a 1", "a  1", "a1b2c3", "٣\n٤", "\n٣", "٣٤ ٥", "½ ½", "x²+y³", "¹⁰", "Ⅷ.Ⅸ", "㊿㊿", "a½b", "1½", "½1", "🇫", "👨‍", "\u200d", "e\u0301", "\u0301",
]


def runs(random):
    """Long runs of one thing between two words."""
    for run in [" ", "\n", "\t", "\r\n", "-", "=", "0", "a", "é", "中", "😀", "\u00a0", "!", "'"]:
        for count in [2, 3, 5, 8, 16, 17, 40, 100]:
            yield run * count
            yield random.choice(WORDS) + run * count + random.choice(WORDS)


def mixtures(random, count):
    for _ in range(count):
        tables = random.sample([NUMBERS, EMOJI, WORDS, WORDS, PUNCTUATION, SPACES, ["{number}"], [" "]], random.randint(2, 6))
        pieces = [random.choice(random.choice(tables)) for _ in range(random.randint(2, 24))]
        yield "".join(str(random.randrange(10 ** random.randint(1, 9))) if piece == "{number}" else piece for piece in pieces)


def line_ends(random, count):
    """Line ends beside digits and numbers of other scripts, where pre-tokenisers part."""
    for _ in range(count):
        numbers = NUMBERS + [str(random.randrange(10000)) for _ in NUMBERS]
        yield "".join(
            random.choice([random.choice(numbers), random.choice(SPACES), random.choice(["a", "é", ".", "中"])])
            for _ in range(random.randint(2, 10))
        )


def conversations(random, count, texts, special):
    for _ in range(count):
        text = ""
        for _ in range(random.randint(1, 4)):
            inside = random.choice([random.choice(texts)[:60], random.choice(WORDS), random.choice(special + NOT_SPECIAL), ""])
            text += random.choice([
                f"<|im_start|>{random.choice(ROLES)}\n{inside}<|im_end|>\n",
                random.choice(special) + random.choice(SPACES) + inside,
                inside + random.choice(special + NOT_SPECIAL),
            ])
        yield text


def unicode_texts(random, count):
    """Any characters at all, surrogates aside."""
    for _ in range(count):
        last = random.choice([0x7F, 0xFF, 0x7FF, 0xFFFF, 0x10FFFF])
        points = (random.randrange(last + 1) for _ in range(random.randint(1, 16)))
        yield "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def corpus(random, root, count):
    for task in ["translation", "summarisation", "qa"]:
        table = pyarrow.parquet.read_table(root / "data" / task / "calibration.parquet")
        texts = table["source"].to_pylist() + table["target"].to_pylist()
        yield from random.sample(sorted(texts), count // 3)


def sources(random, root, count):
    listed = subprocess.run(["git", "ls-files", "*.rs", "*.py", "*.toml", "*.sh", "*.md"], cwd=root, check=True, capture_output=True, text=True)
    paths = listed.stdout.split()
    for _ in range(count):
        lines = (root / random.choice(paths)).read_text().splitlines(keepends=True)
        first = random.randrange(len(lines))
        yield "".join(lines[first : first + random.randint(1, 8)])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--root", type=Path, default=HERE.parents[2], help="the repository")
    arguments = parser.parse_args()
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(arguments.model).encode(), params)
    vocab = llama_cpp.llama_model_get_vocab(model)

    tokens = range(llama_cpp.llama_vocab_n_tokens(vocab))
    control = filter(lambda token: llama_cpp.llama_vocab_is_control(vocab, token), tokens)
    special = [llama_cpp.llama_vocab_get_text(vocab, token).decode() for token in control]
    chance = random.Random(1)
    texts = list(corpus(chance, arguments.root, 300))
    made = [*EDGES, *CODE, *WORDS, *NUMBERS, *EMOJI, *SPACES, *special, *NOT_SPECIAL, *runs(chance), *texts]
    made += [*mixtures(chance, 600), *line_ends(chance, 250), *conversations(chance, 200, texts, special), *unicode_texts(chance, 150)]
    made += sources(chance, arguments.root, 150)

    def tokenize(text, recognise):
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 1))()
        count = llama_cpp.llama_tokenize(vocab, data, len(data), ids, len(ids), False, recognise)
        assert count >= 0, text
        return list(ids[:count])

    lines = []
    for text in dict.fromkeys(made):
        case = {"text": text, "ids": tokenize(text, False), "ids_special": tokenize(text, True)}
        lines.append(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")
    path = HERE / "smollm2_llama_cpp.jsonl.gz"
    path.write_bytes(gzip.compress("".join(lines).encode(), 9, mtime=0))
    print(f"{len(lines)} texts, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
