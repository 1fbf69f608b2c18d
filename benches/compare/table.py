"""The table of a comparison: medians over the rounds, and ratios to the fastest of the other runtimes with the same numbers of bits."""

import collections
import glob
import json
import os
import statistics
import sys


def main(folder):
    rates = collections.defaultdict(list)
    memory = []
    for path in sorted(glob.glob(os.path.join(folder, "round-*.jsonl"))):
        for line in open(path):
            case = json.loads(line)
            rates[case["runtime"], case["dtype"], case["threads"]].append(case["tokens_per_second"])
    for path in sorted(glob.glob(os.path.join(folder, "round-*-*.json"))):
        report = json.load(open(path))
        memory.append(report["memory_rate"] / 1e9)
        for case in report["cases"]:
            key = "calm", case["dtype"], report["threads"]
            rates[key].append(case["tokens_per_second"][0])
    print(f"memory read at {min(memory):.0f} to {max(memory):.0f} GB/s; tokens a second, median (least - most) of the rounds")
    for (runtime, dtype, threads), values in rates.items():
        median = statistics.median(values)
        print(f"{runtime:13} {dtype:13} {threads} threads {median:8.1f}  ({min(values):.1f} - {max(values):.1f})")

    def best(runtime, dtypes=None):
        found = [statistics.median(v) for (r, d, _), v in rates.items() if r == runtime and (not dtypes or d in dtypes)]
        return max(found, default=float("nan"))

    for dtype in ["f32", "bf16", "int8"]:
        ours = best("calm", [dtype])
        print(
            f"calm {dtype:4} / best of CTranslate2 in float32 {ours / best('ctranslate2', ['float32']):.2f}, "
            f"in any type {ours / best('ctranslate2'):.2f}, / transformers {ours / best('transformers'):.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
