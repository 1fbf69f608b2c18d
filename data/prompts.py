"""Makes prompts for instruction models of the package descriptions in the bundled corpus.

    python3 data/prompts.py [--data data] [--out data/prompts]

Reads the splits of `summarisation` and `qa` (`calm data debian --out data` writes the training splits) and writes
OUT/TASK/SPLIT.jsonl.gz. A line is an example: `id` (binary package and start of its description's MD5 sum), `package` (source package,
by which the splits are made), `messages` (a list of `role` and `content`, as chat templates take them) and `references`. The same
splits give the same files, byte for byte. Needs pyarrow.
"""

import argparse
import gzip
import hashlib
import json
import re
from pathlib import Path

import pyarrow.parquet

# In the order in which they choose: an answer to a question is in one of them only.
SPLITS = {"test": 500, "calibration": 500, "train": 2000}
# As in the corpus: examples of a split are to be close to independent.
MOST_OF_A_PACKAGE = 8
# With instruction and chat template at most 362 tokens of SmolLM2.
MOST_CHARACTERS = 1000

# A sentence that answers a question about the package, and the question.
ANSWERS = [
    (r"This package (contain|provide|include|install|ship)s ", "What does the package {name} {verb}?"),
    (r"(?:It|This (?:library|module|program|tool)) "
     r"(provide|support|allow|use|feature|offer|implement|include|contain|enable|handle|read|create|manage)s ",
     "What does the software in the package {name} {verb}?"),
    (r"This (?:package|library|module|program|tool) (is) ", "What is the package {name}?"),
    (r"It (can) ", "What can the software in the package {name} do?"),
]


def summarise(name, text, synopsis):
    if len(text.split()) >= 40:
        return f"Summarize this text in one sentence.\n\n{text}", synopsis
    return None


def rewrite(name, text, synopsis):
    """The text itself is the reference: what a rewriting keeps of it can be measured, no more."""
    if 20 <= len(text.split()) <= 60:
        return f"Rewrite this text in simple words.\n\n{text}", text
    return None


def question(name, text, synopsis):
    sentences = re.split(r"(?<=[.!?]) (?=[A-Z])", text)
    for sentence in sentences[1:]:
        for pattern, wording in ANSWERS:
            match = re.match(pattern, sentence)
            if match and len(sentences) >= 3 and len(sentence.split()) >= 6:
                asked = wording.format(name=name, verb=match.group(1))
                return f"{text}\n\n{asked} Answer in one sentence.", sentence
    return None


# Those that can use the fewest descriptions choose first.
TASKS = {"question": question, "rewrite": rewrite, "summarise": summarise}


def letters(text):
    """What is left of a text without digits, punctuation and case."""
    return "".join(filter(str.isalpha, text.lower()))


def digest(*texts):
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def descriptions(data, split):
    """Id, source package, text and synopsis of every description of a split, in an order of no meaning."""
    found = {}
    for task in ["summarisation", "qa"]:
        path = data / "train" / f"{task}.parquet" if split == "train" else data / task / f"{split}.parquet"
        for record in pyarrow.parquet.read_table(path).to_pylist():
            if task == "qa":
                # `question: SYNOPSIS WITH ___ context: TEXT`; the target is what is missing.
                synopsis, text = record["source"].removeprefix("question: ").split(" context: ", 1)
                synopsis = synopsis.replace("___", record["target"], 1)
            else:
                synopsis, text = record["target"], record["source"].removeprefix("summarize: ")
            found[record["id"]] = (record["id"], record["package"], text, synopsis)
    return sorted(found.values(), key=lambda description: digest(*description))


def examples(data, split, count, answers):
    """Deals the descriptions out to the tasks: none is in two of them, and no answer is one of `answers`, which grow."""
    dealt = {task: [] for task in TASKS}
    of_package = {}
    for identity, package, text, synopsis in descriptions(data, split):
        name = identity.rsplit("/", 1)[0]
        if len(text) > MOST_CHARACTERS or of_package.get(package, 0) == MOST_OF_A_PACKAGE:
            continue
        # Of the tasks that can use it the one takes it that can use the fewest.
        for task in TASKS:
            made = TASKS[task](name, text, synopsis) if len(dealt[task]) < count else None
            if made and (task != "question" or letters(made[1]) not in answers):
                content, reference = made
                answers.add(letters(reference))
                dealt[task].append({
                    "id": identity, "package": package,
                    "messages": [{"role": "user", "content": content}], "references": [reference],
                })
                of_package[package] = of_package.get(package, 0) + 1
                break
    return dealt


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    # No name and no time in the header: equal contents are equal files.
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("data/prompts"))
    arguments = parser.parse_args()
    places, answers = {}, set()
    for split, count in SPLITS.items():
        for task, lines in examples(arguments.data, split, count, answers).items():
            if len(lines) < count:
                raise SystemExit(f"{task}: only {len(lines)} of {count} examples for {split}")
            for line in lines:
                # The corpus's splits are of packages: none of them is in two.
                place = places.setdefault(line["package"], split)
                assert place == split, f"{line['package']} is in {place} and {split}"
            write(arguments.out / task / f"{split}.jsonl.gz", lines)


if __name__ == "__main__":
    main()
