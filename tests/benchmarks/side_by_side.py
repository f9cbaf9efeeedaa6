#!/usr/bin/env python3
"""Tessera and its peers on the same shapes, in turns, on this machine; prints ratios with their spread.

usage: .venv/bin/python tests/benchmarks/side_by_side.py [--rounds N] [--seconds S] [--peers DIR] [--device cpu|cuda] [--only TEXT]

Each round runs, for every shape: step_benchmark (ours), hf_step.py (transformers, eager) and hf_step.py --compile, one
after the other on an otherwise idle machine. A line's ratio is ours over the better peer of the same round.
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHAPES = [("bert-mini", 16, 128), ("bert-base", 8, 128), ("gpt2", 4, 128)]


def run(command):
    """(median tokens/s, peak MiB) of one process that prints `… N tok/s median …`."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{out}{err}")
    return float(re.search(r"([\d.]+) tok/s median", out).group(1)), usage.ru_maxrss / 1024


def middle(values):
    return f"{statistics.median(values):8.0f} ({min(values):.0f}-{max(values):.0f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peers", type=pathlib.Path, default=ROOT.parent / "shared/peers")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", default="", help="run shapes whose line contains this text")
    arguments = parser.parse_args()
    peer = arguments.peers / "hf_step.py"
    if not peer.exists():
        sys.exit(f"no {peer}: pass --peers DIR")
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"{model}, {arguments.threads} threads, {arguments.rounds} rounds of {arguments.seconds:g} s; tokens/s median (min-max)")
    common = ["--threads", arguments.threads, "--seconds", arguments.seconds, "--device", arguments.device]
    worst = 1e9
    for name, batch, sequence in SHAPES:
        for dtype in ("fp32", "bf16"):
            label = f"{name} {batch}x{sequence} {dtype}"
            if arguments.only not in label:
                continue
            shape = [name, batch, sequence, dtype, *common]
            ours, eager, compiled, memory = [], [], [], []
            for _ in range(arguments.rounds):
                speed, own_peak = run([ROOT / "build/release/tool_step_benchmark", *shape])
                ours.append(speed)
                speed, eager_peak = run([sys.executable, peer, *shape])
                eager.append(speed)
                compiled.append(run([sys.executable, peer, *shape, "--compile"])[0])
                memory.append((own_peak, eager_peak))
            ratios = [a / max(b, c) for a, b, c in zip(ours, eager, compiled)]
            worst = min(worst, statistics.median(ratios))
            print(f"{label:22s} ours {middle(ours)}  eager {middle(eager)}  compiled {middle(compiled)}  "
                  f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})  "
                  f"peak MiB {statistics.median(a for a, _ in memory):.0f} : {statistics.median(b for _, b in memory):.0f}", flush=True)
    print(f"lowest median ratio {worst:.2f}")


if __name__ == "__main__":
    main()
