#!/usr/bin/env python3
"""Seconds from `mpirun -n 1 tessera train` to the end of the first step, beside a plain transformers loop and its Trainer.

usage: .venv/bin/python tests/benchmarks/startup.py [--rounds N] [--recipe RECIPE] [--peers DIR]

Needs the quickstart's data. All sides run in turns as whole processes, twice, of which the second counts; ours ends when
the first step's line appears in metrics.jsonl, the peers' when they have printed "first step done".
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


def ours(recipe):
    with tempfile.TemporaryDirectory() as folder:
        metrics = pathlib.Path(folder) / "run/metrics.jsonl"
        root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        start = time.perf_counter()
        process = subprocess.Popen(["mpirun", *root, "-n", "1", ROOT / "build/release/tessera", "train", recipe, f"run.folder={folder}/run",
                                    "train.steps=100", "train.global_batch=16", "train.micro_batch=16", "log.every=1", "evaluate.every=0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                sys.exit("tessera train failed; has launch/quickstart made its data?")
            time.sleep(0.001)
        took = time.perf_counter() - start
        process.kill()
        process.wait()
        subprocess.run(["pkill", "-9", "-f", folder])
    return took


def theirs(peer, *arguments):
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, peer, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    for line in process.stdout:
        if "first step done" in line:
            took = time.perf_counter() - start
            process.wait()
            return took
    sys.exit(f"{peer} failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--recipe", type=pathlib.Path, default=ROOT / "recipes/bert/pretrain-mini.yaml")
    parser.add_argument("--peers", type=pathlib.Path, default=ROOT.parent / "shared/peers")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    sides = {"tessera": lambda: ours(arguments.recipe), "plain loop": lambda: theirs(arguments.peers / "hf_startup.py"),
             "Trainer": lambda: theirs(arguments.peers / "hf_startup.py", "trainer")}
    times = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, run in sides.items():
            run()  # on a virtual machine, memory that the side before gave back is slow to come again
            times[name].append(run())
    for name, values in times.items():
        print(f"{name:12s} {statistics.median(values):.2f} s ({min(values):.2f}-{max(values):.2f}, {arguments.rounds} rounds)")


if __name__ == "__main__":
    main()
