#!/usr/bin/env python3
"""Seconds of a step as `tessera validate` forecasts them, beside those that it takes.

usage: .venv/bin/python tests/benchmarks/forecast.py [--steps N] [--rounds N] [--only TEXT]

`tessera doctor` measures the machine on as many ranks as train, of one thread each; then every layout is forecast and
trained, in turns, --rounds times. The models: 4 blocks of width 256, 8192 words, 128 tokens, dropout 0.1, fp32, 8 samples per
rank. The ratio is measured over forecast.
"""
import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/launch"))
import runs  # noqa: E402

SIZES = {"hidden_size": 256, "num_layers": 4, "num_heads": 4, "feed_forward_size": 1024, "max_positions": 128,
         "vocab_size": 8192, "dropout": 0.1}
# (name, ranks, parallel, micro-batch)
LAYOUTS = [
    ("1 rank", 1, {}, 8),
    ("replicate 2", 2, {}, 8),
    ("zero 3", 2, {"shard": 2}, 8),
    ("tensor 2", 2, {"tensor": 2}, 8),
    ("pipeline 2", 2, {"pipeline": 2}, 4),
]
WARM_UP = 5


def write_recipe(folder, family, layout, steps):
    _, ranks, parallel, micro_batch = layout
    return runs.recipe(folder, family, model=SIZES, data={"sequence_length": 128, "short_sequence_probability": 0},
                       train={"steps": steps + WARM_UP, "global_batch": 8 * ranks, "micro_batch": micro_batch, "device": "cpu"},
                       parallel=parallel, log={"profile": True})


def measure(folder, ranks):
    """A file of figures of this machine."""
    path = folder / f"machine-{ranks}.json"
    runs.must(runs.tessera("doctor", "--cpu", "--save", path, ranks=ranks))
    return path


def forecast(recipe, ranks, machine):
    plan = runs.must(runs.tessera("validate", recipe, "--ranks", ranks, "--machine", machine, "--json"))
    return json.loads(plan.stdout)["time"]


def train(folder, recipe, ranks):
    """Median seconds of the steps after the first ones."""
    runs.must(runs.tessera("train", recipe, f"run.folder={folder}/run", ranks=ranks, timeout=600))
    return statistics.median(seconds for step, seconds in runs.metrics(folder / "run", "step_seconds").items() if step > WARM_UP)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="of each run, after 5 that do not count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="run what contains this text")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}, {options.rounds} rounds; "
          "seconds of a step, median (min-max)")
    for family in runs.FAMILIES:
        for layout in LAYOUTS:
            title, ranks = f"{family} {layout[0]}", layout[1]
            if options.only not in title:
                continue
            told, taken = [], []
            for _ in range(options.rounds):
                with tempfile.TemporaryDirectory(prefix="tessera-forecast-") as name:
                    folder = pathlib.Path(name)
                    recipe = write_recipe(folder, family, layout, options.steps)
                    told.append(forecast(recipe, ranks, measure(folder, ranks)))
                    taken.append(train(folder, recipe, ranks))
            totals = [time["total"] for time in told]
            ratios = [real / total for real, total in zip(taken, totals)]
            shares = ", ".join(f"{part} {1e3 * statistics.median(time[part] for time in told):.1f}"
                               for part in told[0] if part != "total" and any(time[part] > 5e-4 for time in told))
            print(f"{title:18s} forecast {statistics.median(totals):.3f}  measured {statistics.median(taken):.3f} "
                  f"({min(taken):.3f}-{max(taken):.3f})  ratio {statistics.median(ratios):.2f} "
                  f"({min(ratios):.2f}-{max(ratios):.2f})  of the forecast, ms: {shares}", flush=True)


if __name__ == "__main__":
    main()
