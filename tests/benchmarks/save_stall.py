#!/usr/bin/env python3
"""What a checkpoint saved in the background costs training: the time of runs that save, less that of runs that do not.

usage: .venv/bin/python tests/benchmarks/save_stall.py [--rounds N] [--steps N] [key.sub=value …]

Needs the quickstart's data. Runs in turns with 0 and with 4 saves between the first and the last step; prints the seconds
that one save adds, and their share of a 1,000-step interval at this step time. On a machine whose cores all train, the
writing itself takes its share of them; the stall proper (the copy into the staging buffer) is part of the figure.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def seconds(steps, every, overrides):
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        metrics = pathlib.Path(folder) / "run/metrics.jsonl"
        process = subprocess.Popen([ROOT / "build/release/tessera", "train", ROOT / "recipes/bert/pretrain-mini.yaml", f"run.folder={folder}/run",
                                    f"train.steps={steps + 5}", "log.every=1", "evaluate.every=0", f"checkpoint.every={every}", "checkpoint.keep=1",
                                    "log.tensorboard=false", *overrides], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        seen, start = 0, None
        while seen < steps:
            if process.poll() is not None:
                sys.exit(process.stderr.read())
            seen = metrics.read_text().count("\n") if metrics.exists() else 0
            if start is None and seen >= 5:
                start = time.perf_counter(), seen
            time.sleep(0.005)
        took = (time.perf_counter() - start[0]) / (seen - start[1])
        process.kill()
        process.wait()
        return took * steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    saves = 4
    added, plain = [], []
    for _ in range(arguments.rounds):
        plain.append(seconds(arguments.steps, 0, arguments.overrides))
        with_saves = seconds(arguments.steps, arguments.steps // (saves + 1), arguments.overrides)
        added.append((with_saves - plain[-1]) / saves)
    step = statistics.median(plain) / arguments.steps
    one = statistics.median(added)
    print(f"a step {step * 1e3:.0f} ms; one save adds {one * 1e3:.0f} ms ({min(added) * 1e3:.0f} to {max(added) * 1e3:.0f}, {arguments.rounds} rounds), "
          f"{one / (1000 * step):.3%} of 1,000 steps")


if __name__ == "__main__":
    main()
