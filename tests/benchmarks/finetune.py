#!/usr/bin/env python3
"""Fine-tunes MiniLM on Debian sections with Tessera and with transformers + peft (finetune_peer.py), in turns, alike: the same data,
budget, rates, dropout and parameters trained. Prints quality, time and memory of both sides, seed by seed, then medians and ratios.

usage: .venv/bin/python tests/benchmarks/finetune.py [--methods full,freeze,head,lora] [--steps 600] [--seeds 1,2,3] [--precision fp32|bf16] [--sequence-length 128]
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes/bert/finetune-classify.yaml"
ADAPT = {"full": "{method: full}", "freeze": "{method: freeze, last_blocks: 2}", "head": "{method: head}",
         "lora": "{method: lora, rank: 8, alpha: 16, targets: [query, value]}"}
RATES = {"full": 2e-4, "freeze": 4e-4, "head": 2e-3, "lora": 4e-3}  # the less is trained, the more it may move


def add_places(parser):
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "data/tasks/sections")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/minilm")


def check_places(a):
    for path in (a.data / "train.jsonl", a.model / "config.json"):
        if not path.exists():
            sys.exit(f"no {path}: run launch/fetch-task-data and launch/fetch-model")


def overrides(a, method):
    """The recipe on these places, with one of ADAPT: nothing evaluated or saved before the end."""
    return [f"model.from={a.model}", f"data.train={a.data}/train.jsonl", "data.bucket=0", f"adapt={ADAPT[method]}", "train.epochs=null",
            "evaluate.every=0", "evaluate.patience=0", "checkpoint.every=0", "log.profile=true", "log.tensorboard=false"]


def measured(command, environment=None):
    """Standard output and peak resident MiB of a process."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{out}{err}")
    return out, usage.ru_maxrss / 1024


def ours(a, method, seed, work):
    folder = pathlib.Path(work) / f"{method}-{seed}"
    command = [ROOT / "build/release/tessera", "train", RECIPE, f"run.folder={folder}", f"run.seed={seed}", *overrides(a, method),
               f"model.attention_dropout={a.attention_dropout}", f"data.validation={a.data}/validation.jsonl",
               f"data.sequence_length={a.sequence_length}", f"train.steps={a.steps}", "train.micro_batch=32", f"train.precision={a.precision}",
               f"optimizer.learning_rate={RATES[method]}", "evaluate.micro_batch=64", "log.every=10"]
    _, peak = measured(command, {"OMP_NUM_THREADS": str(a.threads)})
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "step_seconds" in row]
    seconds = sum(row["step_seconds"] * 10 for row in steps)
    tokens = sum(row["tokens_per_second"] * row["step_seconds"] * 10 for row in steps)
    last = next(row for row in reversed(rows) if "validation_accuracy" in row)
    return {"accuracy": last["validation_accuracy"], "macro_f1": last["validation_f1_macro"], "seconds": seconds, "tokens": tokens, "peak": peak,
            "disk": sum(path.stat().st_size for path in folder.glob("checkpoints/*/*")) / 2**20}


def theirs(a, method, seed):
    out, peak = measured([sys.executable, ROOT / "tests/benchmarks/finetune_peer.py", "--method", method, "--data", a.data, "--model", a.model, "--steps", a.steps,
                          "--seed", seed, "--threads", a.threads, "--precision", a.precision, "--learning-rate", RATES[method],
                          "--attention-dropout", a.attention_dropout, "--sequence-length", a.sequence_length])
    row = json.loads(out.splitlines()[-1])
    return {"accuracy": row["accuracy"], "macro_f1": row["macro_f1"], "seconds": row["seconds"], "tokens": row["tokens_per_second"] * row["seconds"], "peak": peak}


def shown(row):
    return f"accuracy {row['accuracy']:.3f} F1 {row['macro_f1']:.3f} {row['seconds']:6.1f} s {row['tokens'] / row['seconds']:6.0f} tok/s {row['peak']:5.0f} MiB"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="full,freeze,head,lora")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--attention-dropout", type=float, default=0.0, help="0.1 is the model's own")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add_places(parser)
    a = parser.parse_args()
    check_places(a)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"{cpu}, {a.threads} threads, {a.steps} steps of 32 x up to {a.sequence_length}, {a.precision}, attention dropout {a.attention_dropout}")
    with tempfile.TemporaryDirectory() as work:
        for method in a.methods.split(","):
            pairs = []
            for seed in map(int, a.seeds.split(",")):
                pairs.append((ours(a, method, seed, work), theirs(a, method, seed)))
                print(f"{method:7s} seed {seed}  ours {shown(pairs[-1][0])}\n{'':15s}theirs {shown(pairs[-1][1])}", flush=True)

            def median(side, key):
                values = [pair[side][key] for pair in pairs]
                return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"

            speed = statistics.median(b["seconds"] / b["tokens"] / (o["seconds"] / o["tokens"]) for o, b in pairs)
            memory = statistics.median(b["peak"] / o["peak"] for o, b in pairs)
            print(f"{method:7s} accuracy {median(0, 'accuracy')} : {median(1, 'accuracy')}  F1 {median(0, 'macro_f1')} : {median(1, 'macro_f1')}  "
                  f"speed x{speed:.2f}  memory x{memory:.2f}  checkpoint {pairs[0][0]['disk']:.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
