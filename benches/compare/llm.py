"""Greedy decoding of one decoder-only GGUF file on llama.cpp, transformers and calm: each call measures one runtime in a process of its own.

    llm.py measure RUNTIME FILE.gguf --threads N [--calm COMMAND]   JSON lines: case, runtime, threads, value
    llm.py table FOLDER                                             a Markdown table of the rounds' JSON lines in FOLDER

RUNTIME is a name of RUNTIMES. The cases, each the median of some repetitions after one that does not count:

- decode: tokens a second after the first one, 39 tokens before 128 new ones, batch 1;
- batch 8: the same with eight sequences at once, tokens of all of them;
- prefill: tokens a second of a prompt of 512 tokens, until the first new token is there;
- memory: the largest resident memory (MB) of a process that loads the file and decodes the first case once.

A call of N tokens and one of a single token are measured, and a step is a part of their difference: the definition of `calm bench`.
"""

import argparse
import collections
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import source_tokens

PROMPT, NEW, BATCH, PREFILL = 39, 128, 8, 512
REPETITIONS = 3


class LlamaCpp:
    """Through the functions of llama.h; the largest logit is found by numpy, 0.02 ms a token."""

    def __init__(self, path, threads, extra_buffers):
        import llama_cpp

        self.api = llama_cpp
        self.silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.silent, ctypes.c_void_p(0))
        params = llama_cpp.llama_model_default_params()
        params.use_extra_bufts = extra_buffers
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.threads = threads
        self.context = None

    def open(self, batch, tokens):
        if self.context:
            self.api.llama_free(self.context)
        params = self.api.llama_context_default_params()
        params.n_ctx = batch * (tokens + 32)
        params.n_batch = params.n_ubatch = max(PREFILL, batch * PROMPT)
        params.n_seq_max = batch
        # Else every sequence attends over the keys of all, masked.
        params.kv_unified = False
        params.n_threads = params.n_threads_batch = self.threads
        self.context = self.api.llama_init_from_model(self.model, params)

    def step(self, rows, first):
        """Reads tokens of each row from a position on, and returns the best next token of each."""
        import numpy as np

        count = sum(map(len, rows))
        batch = self.api.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        place, wanted = 0, []
        for row, tokens in enumerate(rows):
            for position, token in enumerate(tokens, first):
                batch.token[place], batch.pos[place] = token, position
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, row
                batch.logits[place] = position == first + len(tokens) - 1
                place += 1
            wanted.append(place - 1)
        if self.api.llama_decode(self.context, batch):
            sys.exit("llama_decode failed")
        best = []
        for index in wanted:
            address = ctypes.cast(self.api.llama_get_logits_ith(self.context, index), ctypes.c_void_p).value
            logits = np.frombuffer((ctypes.c_float * self.vocab_size).from_address(address), np.float32)
            best.append(int(logits.argmax()))
        self.api.llama_batch_free(batch)
        return best

    def generate(self, prompt, batch, new):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), False)
        tokens = self.step([prompt] * batch, 0)
        for position in range(len(prompt), len(prompt) + new - 1):
            tokens = self.step([[token] for token in tokens], position)


class Transformers:
    """The file's weights dequantised by transformers itself."""

    def __init__(self, path, threads, dtype):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        torch.set_num_threads(threads)
        folder, name = os.path.split(os.path.abspath(path))
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=getattr(torch, dtype))
        self.model = model.eval()
        self.vocab_size = model.config.vocab_size

    def open(self, batch, tokens):
        pass

    def generate(self, prompt, batch, new):
        ids = self.torch.tensor([prompt] * batch)
        with self.torch.inference_mode():
            mask = self.torch.ones_like(ids)
            self.model.generate(ids, attention_mask=mask, do_sample=False, min_new_tokens=new, max_new_tokens=new).tolist()


def seconds(call):
    call()
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_here(load, path, threads):
    """Cases of a runtime that Python calls."""
    runtime = load(path, threads)

    def step_rate(batch):
        prompt = source_tokens(runtime.vocab_size, PROMPT)
        runtime.open(batch, PROMPT + NEW)
        whole, first = (seconds(lambda: runtime.generate(prompt, batch, new)) for new in (NEW, 1))
        return batch * (NEW - 1) / (whole - first)

    yield "decode", step_rate(1)
    # Kilobytes on Linux.
    yield "memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    yield f"batch {BATCH}", step_rate(BATCH)
    prompt = source_tokens(runtime.vocab_size, PREFILL)
    runtime.open(1, PREFILL)
    yield "prefill", PREFILL / seconds(lambda: runtime.generate(prompt, 1, 1))


def measure_calm(command, dtype, path, threads):
    """Cases of `calm bench`, whose report has ms_per_token of a step of all rows, and time_to_first_token_ms."""

    def bench(source, new, batches):
        with tempfile.NamedTemporaryFile(suffix=".json") as report:
            shape = ["--source-tokens", source, "--new-tokens", new, "--batch-size", ",".join(map(str, batches))]
            arguments = ["bench", "--model", path, "--engine", "cpu", *(["--dtype", dtype] if dtype else []), *shape]
            arguments += ["--threads", threads, "--repetitions", REPETITIONS, "--json", report.name]
            subprocess.run([command, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
            cases = json.load(open(report.name))["cases"]
        return {case["batch_size"]: case for case in cases}

    cases = bench(PROMPT, NEW, [1, BATCH])
    yield "decode", 1e3 / cases[1]["ms_per_token"]
    yield f"batch {BATCH}", BATCH * 1e3 / cases[BATCH]["ms_per_token"]
    yield "prefill", PREFILL * 1e3 / bench(PREFILL, 2, [1])[1]["time_to_first_token_ms"]
    # The benchmark holds a block that it reads the memory's rate with; this is a process that decodes alone.
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as source:
        source.write(json.dumps({"input_ids": list(range(100, 100 + PROMPT))}) + "\n")
        source.flush()
        arguments = ["generate", "--model", path, "--input", source.name, "--max-tokens", NEW, "--threads", threads]
        process = subprocess.Popen([command, *map(str, arguments), *(["--dtype", dtype] if dtype else [])], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{command} generate failed")
    yield "memory", usage.ru_maxrss * 1024 / 1e6


# Name in the table: how its cases are measured, given the path, the number of threads and the command calm.
RUNTIMES = {
    "llama.cpp": lambda path, threads, _: measure_here(lambda *a: LlamaCpp(*a, True), path, threads),
    "llama.cpp, no repacked weights": lambda path, threads, _: measure_here(lambda *a: LlamaCpp(*a, False), path, threads),
    "transformers f32": lambda path, threads, _: measure_here(lambda *a: Transformers(*a, "float32"), path, threads),
    "transformers bf16": lambda path, threads, _: measure_here(lambda *a: Transformers(*a, "bfloat16"), path, threads),
    # Weights as they lie in the file; a type of --dtype instead of None makes a line of its own.
    "calm": lambda path, threads, command: measure_calm(command, None, path, threads),
}


def table(folder):
    values = collections.defaultdict(list)
    for path in sorted(Path(folder).glob("round-*.jsonl")):
        for line in open(path):
            row = json.loads(line)
            values[row.get("runtime", "memory read, GB/s"), row["threads"], row["case"]].append(row["value"])

    def cell(key, digits):
        found = values.get(key)
        if not found:
            return ""
        return f"{statistics.median(found):,.{digits}f} ({min(found):,.{digits}f} - {max(found):,.{digits}f})"

    titles = {
        "decode": "decode, tokens/s", f"batch {BATCH}": f"batch {BATCH}, tokens/s", "prefill": "prefill, tokens/s", "memory": "memory, MB",
    }
    print("| runtime | threads |", " | ".join(titles.values()), "|")
    print("|---|---|" + "---|" * len(titles))
    for name in RUNTIMES:
        for threads in sorted({key[1] for key in values if key[0] == name}):
            print(f"| {name} | {threads} |", " | ".join(cell((name, threads, case), 0) for case in titles), "|")
    print("\nMemory read by plain additions, GB/s: median (least - most)\n")
    sizes = list(dict.fromkeys(key[2] for key in values if key[0] == "memory read, GB/s"))
    print("| threads |", " | ".join(sizes), "|")
    print("|---|" + "---|" * len(sizes))
    for threads in sorted({key[1] for key in values if key[0] == "memory read, GB/s"}):
        print(f"| {threads} |", " | ".join(cell(("memory read, GB/s", threads, size), 1) for size in sizes), "|")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure")
    measure.add_argument("runtime", choices=RUNTIMES)
    measure.add_argument("path")
    measure.add_argument("--threads", type=int, required=True)
    measure.add_argument("--calm", default="calm")
    commands.add_parser("table").add_argument("folder")
    arguments = parser.parse_args()
    if arguments.command == "table":
        table(arguments.folder)
        return
    for case, value in RUNTIMES[arguments.runtime](arguments.path, arguments.threads, arguments.calm):
        row = {"case": case, "runtime": arguments.runtime, "threads": arguments.threads, "value": round(value, 2)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
