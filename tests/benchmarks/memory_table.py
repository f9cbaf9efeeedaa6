#!/usr/bin/env python3
"""Peak memory of `tessera train` beside what `tessera validate` says, as a table.

usage: .venv/bin/python tests/benchmarks/memory_table.py [--only TEXT] [--limit PER_CENT] [--heap]

Both are differences of two runs, which takes out what the program and its libraries need: `activations` rows differ in the
micro-batch, `states` rows in the number of blocks. Measured is the largest resident memory of a process, the first of each
pipeline stage, where every tensor has pages of its own, given back when it is freed: what tensors need, as the formulas mean
it. --heap leaves the program's own heap, which trades memory for time, and shows what that keeps beside. Ends with 1 where a
row is further off than --limit (default: 10).
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/launch"))
import jobs  # noqa: E402
import runs  # noqa: E402

MODEL = {"num_layers": 8, "hidden_size": 256, "num_heads": 4, "feed_forward_size": 1024, "max_positions": 128}
SMALL, LARGE = {"train.micro_batch": 8}, {"train.micro_batch": 32}
FEWER, MORE = {"train.micro_batch": 4}, {"train.micro_batch": 16}
FEW, MANY = {"model.num_layers": 8}, {"model.num_layers": 40}
AGAIN = {"train.recompute": "blocks"}
LAST = {"adapt": "{method: freeze, last_blocks: 2}"}
LORA = {"adapt": "{method: lora, rank: 16}", "model.from": None}  # None: a model of the row's shape, made first
ULYSSES = {"parallel.context": 2, "parallel.context_method": "ulysses"}
PIPELINE = {"parallel.pipeline": 2, "train.accumulate": 4}
GPIPE = {**PIPELINE, "parallel.pipeline_schedule": "gpipe"}
INTERLEAVED = {**PIPELINE, "parallel.pipeline_schedule": "interleaved", "parallel.pipeline_chunks": 2}

# (name, family, ranks, overrides, the two runs' overrides): a layout more is a line more.
ROWS = [
    ("activations, fp32", "bert", 1, {}, (SMALL, LARGE)),
    ("activations, fp32", "gpt", 1, {}, (SMALL, LARGE)),
    ("activations, GPT-1", "gpt", 1, {"model.version": 1}, (SMALL, LARGE)),
    ("activations, bf16", "bert", 1, {"train.precision": "bf16"}, (SMALL, LARGE)),
    ("activations, bf16", "gpt", 1, {"train.precision": "bf16"}, (SMALL, LARGE)),
    ("activations, recomputed", "bert", 1, AGAIN, (SMALL, LARGE)),
    ("activations, recomputed", "gpt", 1, AGAIN, (SMALL, LARGE)),
    ("activations, recomputed, bf16", "gpt", 1, {**AGAIN, "train.precision": "bf16"}, (SMALL, LARGE)),
    ("activations, the last 2 blocks learn", "bert", 1, LAST, (SMALL, LARGE)),
    ("activations, the last 2 blocks learn", "gpt", 1, LAST, (SMALL, LARGE)),
    ("activations, LoRA", "bert", 1, LORA, (SMALL, LARGE)),
    ("activations, LoRA", "gpt", 1, LORA, (SMALL, LARGE)),
    ("activations, attention dropout", "gpt", 1, {"model.attention_dropout": 0.1}, (SMALL, LARGE)),
    ("activations, tensor 2", "bert", 2, {"parallel.tensor": 2}, (SMALL, LARGE)),
    ("activations, tensor 2", "gpt", 2, {"parallel.tensor": 2}, (SMALL, LARGE)),
    ("activations, ring 2", "gpt", 2, {"parallel.context": 2}, (SMALL, LARGE)),
    ("activations, ring 2", "bert", 2, {"parallel.context": 2}, (SMALL, LARGE)),
    ("activations, ring 2, recomputed", "gpt", 2, {"parallel.context": 2, **AGAIN}, (SMALL, LARGE)),
    ("activations, ring 2 x tensor 2", "gpt", 4, {"parallel.context": 2, "parallel.tensor": 2}, (SMALL, LARGE)),
    ("activations, ulysses 2", "gpt", 2, ULYSSES, (SMALL, LARGE)),
    ("activations, ulysses 2", "bert", 2, ULYSSES, (SMALL, LARGE)),
    ("activations, 1f1b 2", "gpt", 2, PIPELINE, (FEWER, MORE)),
    ("activations, 1f1b 2", "bert", 2, PIPELINE, (FEWER, MORE)),
    ("activations, 1f1b 2, recomputed", "gpt", 2, {**PIPELINE, **AGAIN}, (SMALL, LARGE)),
    ("activations, 1f1b 2, bf16", "gpt", 2, {**PIPELINE, "train.precision": "bf16"}, (FEWER, MORE)),
    ("activations, 1f1b 4", "gpt", 4, {**PIPELINE, "parallel.pipeline": 4}, (FEWER, MORE)),
    ("activations, gpipe 2", "gpt", 2, GPIPE, (FEWER, MORE)),
    ("activations, interleaved 2 x 2", "gpt", 2, INTERLEAVED, (FEWER, MORE)),
    ("activations, interleaved 2 x 2", "bert", 2, INTERLEAVED, (FEWER, MORE)),
    ("activations, ring 2 x 1f1b 2", "gpt", 4, {**PIPELINE, "parallel.context": 2}, (FEWER, MORE)),
    ("states, alone", "gpt", 1, {}, (FEW, MANY)),
    ("states, alone, accumulated, bf16", "gpt", 1, {"train.precision": "bf16", "train.accumulate": 2}, (FEW, MANY)),
    ("states, the last 2 blocks learn", "gpt", 1, LAST, (FEW, MANY)),
    ("states, LoRA", "gpt", 1, LORA, (FEW, MANY)),
    ("states, LoRA, bf16", "gpt", 1, {**LORA, "train.precision": "bf16"}, (FEW, MANY)),
    ("states, LoRA, zero 3", "gpt", 2, {**LORA, "parallel.shard": 2, "parallel.zero": 3}, (FEW, MANY)),
    ("states, replicate 2", "gpt", 2, {}, (FEW, MANY)),
    ("states, replicate 2, bf16", "gpt", 2, {"train.precision": "bf16"}, (FEW, MANY)),
    ("states, zero 1", "gpt", 2, {"parallel.shard": 2, "parallel.zero": 1}, (FEW, MANY)),
    ("states, zero 1, accumulated", "gpt", 2, {"parallel.shard": 2, "parallel.zero": 1, "train.accumulate": 2}, (FEW, MANY)),
    ("states, zero 2", "gpt", 2, {"parallel.shard": 2, "parallel.zero": 2}, (FEW, MANY)),
    ("states, zero 3", "gpt", 2, {"parallel.shard": 2, "parallel.zero": 3}, (FEW, MANY)),
    ("states, zero 3, bf16", "gpt", 2, {"parallel.shard": 2, "parallel.zero": 3, "train.precision": "bf16"}, (FEW, MANY)),
    ("states, tensor 2", "gpt", 2, {"parallel.tensor": 2}, (FEW, MANY)),
    ("states, ring 2", "gpt", 2, {"parallel.context": 2}, (FEW, MANY)),
    ("states, 1f1b 2", "gpt", 2, PIPELINE, (FEW, MANY)),
    ("states, zero 3 x 1f1b 2", "gpt", 4, {**PIPELINE, "parallel.shard": 2, "parallel.zero": 3}, (FEW, MANY)),
]


def own_pages(folder):
    """The environment in which malloc() is the C library's as it comes, and gives all that is large a mapping of its own."""
    source, library = folder / "malloc.c", folder / "malloc.so"
    source.write_text("int mallopt(int parameter, int value) { (void)parameter; (void)value; return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": library, "MALLOC_MMAP_THRESHOLD_": 65536}


def batches(overrides, ranks):
    """micro_batch and `train.accumulate`, which is ours, become a global batch."""
    micro = overrides.setdefault("train.micro_batch", 1)
    inside = overrides.get("parallel.tensor", 1) * overrides.get("parallel.context", 1) * overrides.get("parallel.pipeline", 1)
    overrides["train.global_batch"] = micro * overrides.pop("train.accumulate", 1) * ranks // inside
    return [f"{key}={value}" for key, value in overrides.items()]


def run(family, ranks, overrides, heap):
    """Bytes of each pipeline stage: measured, and by the formulas."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = runs.recipe(folder, family, model=MODEL, data={"sequence_length": 128, "short_sequence_probability": 0},
                           train={"steps": 1000})
        if "model.from" in overrides:
            overrides = {**overrides, "model.from": folder / "start"}
            shape = [f"{key}={value}" for key, value in overrides.items() if key.startswith("model.") and key != "model.from"]
            runs.must(runs.tessera("train", path, f"run.folder={folder}/start", "train.steps=1", "train.global_batch=1", "train.micro_batch=1",
                                   "data.validation=null", *shape))
        arguments = batches(dict(overrides), ranks)
        plan = json.loads(runs.must(runs.tessera("validate", path, "--ranks", ranks, "--json", "train.device=cpu", *arguments)).stdout)
        formulas = plan["memory"]["stages"]
        with jobs.Job(path, ranks, ["train.device=cpu", *arguments], steps=3, **({} if heap else own_pages(folder))) as job:
            pids = job.ranks()  # before they save: that needs memory too
            return [(peak(pids[stage * ranks // len(formulas)]), formula) for stage, formula in enumerate(formulas)]


def peak(pid):
    """Largest resident memory so far, in bytes, without what MPI shares with the host's other ranks, which only grows."""
    facts = dict(re.findall(r"(\w+):\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text()))
    return 1024 * (int(facts["VmHWM"]) - int(facts["RssShmem"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name or family contains this")
    parser.add_argument("--limit", type=float, default=10, help="per cent")
    parser.add_argument("--heap", action="store_true", help="measure the program's own heap")
    options = parser.parse_args()
    far = 0
    print(f"{'':<48}{'measured':>10}{'formula':>10}")
    for name, family, ranks, overrides, pair in ROWS:
        title = f"{family}: {name}"
        if options.only not in title:
            continue
        before, after = [run(family, ranks, {**overrides, **each}, options.heap) for each in pair]
        for stage, (small, large) in enumerate(zip(before, after)):
            measured, formula = large[0] - small[0], large[1] - small[1]
            off = 100 * (formula / measured - 1)
            far += abs(off) > options.limit
            of_stage = f", stage {stage}" if len(before) > 1 else ""
            print(f"{title + of_stage:<48}{measured / 1e6:>7.1f} MB{formula / 1e6:>7.1f} MB{off:>+7.1f} %", flush=True)
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
