#!/usr/bin/env python3
"""Kills runs and trainings at random moments, and compares what they leave with what undisturbed ones leave.

    scripts/survive.py --kills 50 [--seed 1] [--bin target/release]

Four kinds of work are killed (SIGKILL), each a share of the kills: decoding, the statistics of a run whose units are
all there, `collect`, and training. After a kill a unit's file is now and then cut off or has a byte changed. The same
command goes on, is killed again, and at last runs to its end: tables have to be those of an undisturbed run, but for
columns of times, and trained weights have to be the same bytes. Exits with 1 if they are not.
"""

import argparse
import csv
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIMED = {"seconds", "tokens_per_second", "test_speedup", "speedup_mean", "speedup_std"}
TABLES = ["sweep.csv", "calibration.csv", "trials.csv"]
SMALL = [
    "data.test_examples=48", "data.calibration_examples=160", "sweep.measures=[\"state\"]",
    "sweep.measure.state.thresholds=[0.99,0.95,0.9]", "sweep.static_layers=[2]", "decode.shard_size=16",
    "calibration.trials.count=20",
]
TRAINING = """\
seed = 3
output = "{out}/model"
checkpoints = "{out}/checkpoints"
tokenizer = "data/tokenizer.json"
checkpoint_every = 5
model = {{ d_model = 32, d_kv = 8, d_ff = 32, num_heads = 2, num_layers = 1, num_decoder_layers = 2 }}
data = {{ tasks = [{{ name = "translation", train = "data/translation/calibration.parquet" }}], max_source_tokens = 48, \
max_target_tokens = 48, batch_tokens = 800 }}
optimizer = {{ learning_rate = 0.01 }}
schedule = {{ steps = 60, warmup_steps = 10 }}
classifier = {{ steps = 10 }}
validation = {{ examples = 4, every = 40 }}
"""


class Work:
    """A command, the folder that it writes to, and what is compared of that."""

    def __init__(self, name, command, prepare, result):
        self.name, self.command, self.prepare, self.result = name, command, prepare, result


def tables(out):
    """The tables of a run without the columns of times."""
    found = []
    for name in TABLES:
        with open(out / name, newline="") as file:
            for row in csv.DictReader(file):
                found.append((name, [(key, cell) for key, cell in row.items() if key not in TIMED]))
    return found


def weights(out):
    """The published weights and the last checkpoint."""
    files = [out / "model/model.safetensors", *sorted((out / "checkpoints").glob("step-*/state.safetensors"))[-1:]]
    return [file.read_bytes() for file in files]


def damage(out, rng):
    """Cuts a unit's file off, or changes a byte of it, as a failing disk does."""
    units = sorted((out / "generations").glob("*/*/shard-*.jsonl"))
    if not units:
        return None
    unit = rng.choice(units)
    content = bytearray(unit.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        del content[place:]
    else:
        content[place] ^= 1 << rng.randrange(8)
    unit.write_bytes(content)
    return unit.relative_to(out)


def run(command, kill_after=None):
    """Runs a command to its end, or kills it after so many seconds: whether it was killed."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nended with {process.returncode}:\n{said}")
    return False


def survive(work, kills, folder, rng):
    """Kills the work so often; the number of times that it came to its end in between."""
    undisturbed = folder / f"{work.name}-undisturbed"
    work.prepare(undisturbed)
    started = time.monotonic()
    run(work.command(undisturbed))
    seconds = time.monotonic() - started
    expected = work.result(undisturbed)
    done, ends = 0, 0
    while done < kills:
        out = folder / f"{work.name}-{ends}"
        work.prepare(out)
        for _ in range(min(kills - done, 6)):
            # Work that goes on is shorter each time; a kill that comes too late is none.
            if not run(work.command(out), rng.uniform(0.02, 0.7) * seconds):
                break
            done += 1
            if work.name == "decoding" and rng.random() < 0.4:
                damage(out, rng)
        run(work.command(out))
        ends += 1
        if work.result(out) != expected:
            sys.exit(f"{work.name}: {out} is not what an undisturbed one leaves")
    print(f"{work.name:10}  {done:3} kills, {ends} runs as if undisturbed ({seconds:.1f} s each)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one kind of work")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    program, calm = ((ROOT / arguments.bin / name).resolve() for name in ["calm-experiments", "calm"])
    overrides = [word for key in SMALL for word in ["--set", key]]

    def experiment(*command):
        return lambda out: [program, *command, "configs/wmt.toml", *overrides, "--threads", "2", "--out", out]

    def decoded(out):
        if not out.exists():
            run(experiment("run")(out))

    def configured(out):
        out.mkdir(exist_ok=True)
        (out / "train.toml").write_text(TRAINING.format(out=out))

    def training(out):
        return [calm, "train", out / "train.toml", "--device", "cpu", "--threads", "1"]

    works = [
        (Work("decoding", experiment(), lambda out: None, tables), 0.4),
        (Work("statistics", experiment(), decoded, tables), 0.15),
        (Work("collecting", experiment("collect"), decoded, tables), 0.15),
        (Work("training", training, configured, weights), 0.3),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for work, share in works:
            if arguments.only not in (None, work.name):
                continue
            survive(work, max(1, round(arguments.kills * share)), pathlib.Path(folder), rng)


if __name__ == "__main__":
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    main()
