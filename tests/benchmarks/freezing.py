#!/usr/bin/env python3
"""What training less saves: step time, peak memory and bytes on the wire of MiniLM with everything, the last 2 blocks, the head or
LoRA trained, beside what counting operations and tensors says.

usage: .venv/bin/python tests/benchmarks/freezing.py [--rounds 3] [--steps 12] [--micro-batch 32]

Time: medians over the steps after the first two, the methods in turns, rounds times. Memory: the largest resident memory of a
process without evaluation, every tensor in pages of its own (as in memory_table.py), as what it is below `full`. Bytes: what a rank
of two sends as gradients in a step. Expected:
  time    products only: forward 1, gradients of inputs 1 from the lowest trained layer up, gradients of weights 1 where trained
  memory  the plan of `tessera validate`
  bytes   4 for each trained parameter: half of them out as shares, half back as sums
"""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/launch"), str(ROOT / "tests/benchmarks")]
import finetune  # noqa: E402
import jobs  # noqa: E402
import memory_table  # noqa: E402
import runs  # noqa: E402

METHODS = {"full": "full", "freeze": "last 2 blocks", "head": "head", "lora": "LoRA"}  # of finetune.ADAPT
RANK = 8  # of its LoRA
BLOCKS, HIDDEN, FORWARD, WORDS, POSITIONS, LABELS = 6, 384, 1536, 30522, 512, 58  # MiniLM
LENGTH = 128


def trained_parameters(method):
    block = 4 * HIDDEN * (HIDDEN + 1) + 2 * HIDDEN * FORWARD + FORWARD + HIDDEN + 4 * HIDDEN
    embeddings = (WORDS + POSITIONS + 2 + 2) * HIDDEN
    pooler, classifier = HIDDEN * (HIDDEN + 1), LABELS * (HIDDEN + 1)
    return {"full": embeddings + BLOCKS * block + pooler + classifier, "freeze": 2 * block + pooler + classifier,
            "head": pooler + classifier, "lora": BLOCKS * 2 * 2 * RANK * HIDDEN + classifier}[method]


def expected_time(method):
    """Multiplications of a token in a step, in parts of `full`."""
    dense, attention = 4 * HIDDEN**2 + 2 * HIDDEN * FORWARD, 2 * LENGTH * HIDDEN
    forward, inputs = dense + attention, dense + 2 * attention
    first_inputs = 3 * HIDDEN**2  # what is below the lowest trained block takes no gradient from its query, key and value
    low_rank = BLOCKS * 2 * 2 * RANK * HIDDEN * 3
    full = BLOCKS * (forward + inputs + dense)
    return {"full": full, "freeze": BLOCKS * forward + 2 * (inputs + dense) - first_inputs, "head": BLOCKS * forward,
            "lora": BLOCKS * (forward + inputs) - first_inputs + low_rank}[method] / full


def options(a, method, ranks=1):
    return [*finetune.overrides(a, method), "model.attention_dropout=0", "data.validation=null", "evaluate.metric=loss",
            "evaluate.predictions=false", "log.every=1", "train.device=cpu", f"train.global_batch={a.micro_batch * ranks}",
            f"train.micro_batch={a.micro_batch}"]


def run(a, method, ranks, folder):
    """The lines of metrics of a run to its end."""
    runs.must(runs.tessera("train", finetune.RECIPE, f"run.folder={folder}", f"train.steps={a.steps}", *options(a, method, ranks), ranks=ranks,
                           timeout=3600, env={"OMP_NUM_THREADS": 1 if ranks > 1 else a.threads}))
    return [row for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if "step_seconds" in row]


def expected_memory(a, method):
    """Bytes at the height of a step, as `tessera validate` plans it."""
    done = runs.must(runs.tessera("validate", finetune.RECIPE, "--json", "train.steps=1", *options(a, method)))
    return json.loads(done.stdout)["memory"]["total"]


def peak(a, method, work):
    """Largest resident memory of one rank over some steps, in bytes, before it saves."""
    recipe = work / "recipe.yaml"
    recipe.write_text(finetune.RECIPE.read_text())
    with jobs.Job(recipe, 1, [f"run.folder={work}/run", "train.steps=1000", *options(a, method)], steps=6, **memory_table.own_pages(work)) as job:
        return memory_table.peak(job.ranks()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    finetune.add_places(parser)
    a = parser.parse_args()
    finetune.check_places(a)
    print(f"MiniLM, {a.micro_batch} x {LENGTH}, fp32, {a.threads} threads, {a.rounds} rounds of {a.steps} steps")
    seconds = {method: [] for method in METHODS}
    memory, planned, sent = {}, {}, {}
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        for round_ in range(a.rounds):
            for method in METHODS:
                seconds[method].append(statistics.median(row["step_seconds"] for row in run(a, method, 1, work / f"{method}-{round_}")[2:]))
        for method in METHODS:
            folder = work / f"memory-{method}"
            folder.mkdir()
            memory[method] = peak(a, method, folder)
            planned[method] = expected_memory(a, method)
            sent[method] = run(a, method, 2, work / f"{method}-two")[-1]["sent_bytes_gradient"]
    print("| | trained | step, s | of full | expected | memory below full | expected | sent | expected |\n| --- " + "| --- " * 8 + "|")
    full = statistics.median(seconds["full"])
    for method in METHODS:
        median, least, most = statistics.median(seconds[method]), min(seconds[method]), max(seconds[method])
        print(f"| {METHODS[method]} | {trained_parameters(method):,} | {median:.3f} ({least:.3f}-{most:.3f}) | {median / full:.2f} | {expected_time(method):.2f} | "
              f"{(memory['full'] - memory[method]) / 1e6:.0f} MB | {(planned['full'] - planned[method]) / 1e6:.0f} MB | {sent[method] / 1e6:.2f} MB | {4 * trained_parameters(method) / 1e6:.2f} MB |")


if __name__ == "__main__":
    main()
