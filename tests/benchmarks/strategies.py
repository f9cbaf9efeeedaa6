#!/usr/bin/env python3
"""Tessera's data parallelism and PyTorch's over gloo, in turns, on this machine: ranks of one thread, fp32, fused AdamW.

usage: .venv/bin/python tests/benchmarks/strategies.py [--rounds N] [--seconds S] [--steps N] [--ranks 2 4] [--only TEXT] [--overhead]

The model: 4 blocks of width 256, 8192 words, 128 tokens, 8 samples per rank, dropout 0.1. Replicas meet DDP, ZeRO 2 meets
FSDP2 that keeps parameters whole after forward, ZeRO 3 meets FSDP2. A ratio is ours over the peer's of the same round.

--overhead: what a step takes of the host instead, in ms per step and per block: 12 blocks of width 16, one sequence of 8
tokens per rank, 600 words, no dropout, so that next to nothing is computed; every strategy on 2 ranks, and one rank alone.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/launch"))
import runs  # noqa: E402

PAIRS = {"replicate": ("ddp", {}), "zero 2": ("fsdp2-whole", {"zero": 2}), "zero 3": ("fsdp2", {"zero": 3})}
FAMILIES = {"bert": "bert", "gpt": "gpt2"}
WARM_UP = 5
TINY_BLOCKS = 12
# name: (ranks, parallel, the peer's strategy); pipelines have 4 micro-batches
OVERHEADS = {
    "alone": (1, {}, "ddp"),
    "replicate": (2, {}, "ddp"),
    "zero 2": (2, {"shard": 2, "zero": 2}, "fsdp2-whole"),
    "zero 3": (2, {"shard": 2, "zero": 3}, "fsdp2"),
    "tensor": (2, {"tensor": 2}, None),
    "ring": (2, {"context": 2}, None),
    "ulysses": (2, {"context": 2, "context_method": "ulysses"}, None),
    "pipeline, 4 micro-batches": (2, {"pipeline": 2}, None),
}


def ours(family, parallel, ranks, steps):
    """Median tokens/s of all ranks together."""
    with tempfile.TemporaryDirectory(prefix="tessera-benchmark-") as folder:
        sizes = {"hidden_size": 256, "num_layers": 4, "num_heads": 4, "feed_forward_size": 1024, "max_positions": 128,
                 "vocab_size": 8192, "dropout": 0.1, "attention_dropout": 0.1}
        recipe = runs.recipe(pathlib.Path(folder), family, model=sizes, data={"sequence_length": 128},
                             train={"steps": steps + WARM_UP, "global_batch": 8 * ranks, "micro_batch": 8},
                             parallel={**parallel, **({"shard": ranks} if parallel else {})})
        runs.must(runs.tessera("train", recipe, ranks=ranks, timeout=600))
        rows = [json.loads(line) for line in (pathlib.Path(folder) / "run/metrics.jsonl").read_text().splitlines()]
        speeds = [row["tokens_per_second"] for row in rows if "tokens_per_second" in row and row["step"] > WARM_UP]
        return statistics.median(speeds)


def our_overhead(name, steps):
    """Median ms of a GPT's step."""
    ranks, parallel, _ = OVERHEADS[name]
    sequences = 4 if "pipeline" in parallel else ranks if set(parallel) <= {"shard", "zero"} else 1
    with tempfile.TemporaryDirectory(prefix="tessera-benchmark-") as folder:
        sizes = {"hidden_size": 16, "num_layers": TINY_BLOCKS, "num_heads": 4, "feed_forward_size": 64, "max_positions": 8,
                 "vocab_size": 600, "dropout": 0}
        recipe = runs.recipe(pathlib.Path(folder), "gpt", model=sizes, data={"sequence_length": 8},
                             train={"steps": steps + WARM_UP, "global_batch": sequences, "micro_batch": 1}, parallel=parallel)
        runs.must(runs.tessera("train", recipe, ranks=ranks, timeout=600))
        rows = [json.loads(line) for line in (pathlib.Path(folder) / "run/metrics.jsonl").read_text().splitlines()]
        return statistics.median(8e3 * sequences / row["tokens_per_second"] for row in rows
                                 if "tokens_per_second" in row and row["step"] > WARM_UP)


def peer_overhead(name, seconds):
    ranks, _, strategy = OVERHEADS[name]
    shapes = ["--batch", 1, "--sequence", 8, "--hidden", 16, "--layers", TINY_BLOCKS, "--vocabulary", 600, "--dropout", 0]
    return 8e3 * ranks / peer("gpt", strategy, ranks, seconds, *shapes)


def compare_overheads(arguments):
    def text(values):
        return " ".join(f"{scale * statistics.median(values):7.3f} ({scale * min(values):.3f}-{scale * max(values):.3f})"
                        for scale in (1, 1 / TINY_BLOCKS))

    print("ms per step, and per block; median (min-max) of the rounds' medians")
    for name, (_, _, strategy) in OVERHEADS.items():
        if arguments.only not in name:
            continue
        mine, theirs = [], []
        for _ in range(arguments.rounds):
            mine.append(our_overhead(name, arguments.steps))
            if strategy:
                theirs.append(peer_overhead(name, arguments.seconds))
        print(f"{name:25s} ours {text(mine)}" + (f"   {strategy} {text(theirs)}" if theirs else ""), flush=True)


def peer(family, strategy, ranks, seconds, *more):
    command = [sys.executable, ROOT / "tests/benchmarks/peer_strategies.py", FAMILIES[family], strategy, ranks,
               "--seconds", seconds, *more]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return float(re.search(r"([\d.]+) tok/s median", done.stdout).group(1))


def middle(values):
    return f"{statistics.median(values):7.0f} ({min(values):.0f}-{max(values):.0f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each peer's run")
    parser.add_argument("--steps", type=int, default=20, help="of each of our runs")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--only", default="", help="run what contains this text")
    parser.add_argument("--overhead", action="store_true", help="the host's part of a step")
    arguments = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}, {arguments.rounds} rounds")
    if arguments.overhead:
        return compare_overheads(arguments)
    print("tokens/s of all ranks, median (min-max)")
    for family in FAMILIES:
        for ranks in arguments.ranks:
            for name, (strategy, parallel) in PAIRS.items():
                label = f"{family} {name} {ranks} ranks"
                if arguments.only not in label:
                    continue
                mine, theirs = [], []
                for _ in range(arguments.rounds):
                    mine.append(ours(family, parallel, ranks, arguments.steps))
                    theirs.append(peer(family, strategy, ranks, arguments.seconds))
                ratios = [a / b for a, b in zip(mine, theirs)]
                print(f"{label:23s} ours {middle(mine)}  {strategy:11s} {middle(theirs)}  "
                      f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", flush=True)


if __name__ == "__main__":
    main()
