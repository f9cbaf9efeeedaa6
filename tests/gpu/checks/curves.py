"""Short runs of small recipes, and their curves, with nothing but the standard library. JSON is YAML."""
import json
import math
import shutil

from runner import Failed

FAMILIES = {"bert": {"name": "mlm_nsp"}, "gpt": {"name": "causal_lm"}}
STEPS = 20


def recipe(kit, name, family="bert", **changes):
    """Writes a small recipe for the run `name`; `changes` are keys of sections; `whole_model` stands for the whole section."""
    folder = kit.scratch / name
    data = kit.data / family
    content = {
        "run": {"folder": str(folder / "run"), "seed": 7},
        "model": {"family": family, "num_layers": 4, "hidden_size": 64, "num_heads": 2, "feed_forward_size": 128, "max_positions": 192,
                  "dropout": 0.1},
        "objective": FAMILIES[family],
        "data": {"train": str(data / "train.h5"), "validation": str(data / "validation.h5"), "sequence_length": 64},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01},
        "schedule": {"name": "linear", "warm_up": 2},
        "train": {"steps": STEPS, "global_batch": 8, "micro_batch": 4, "precision": "fp32", "clip": 1.0, "device": kit.device},
        "checkpoint": {"every": 0},
        "evaluate": {"every": 0},
        "log": {"every": 1, "tensorboard": False},
    }
    for section, values in changes.items():
        content[section] = {**content.get(section, {}), **values} if section != "whole_model" else values
    content["model"] = content.pop("whole_model", content["model"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content, indent=1))
    return path


def curve(path, key="loss"):
    """{step: value} of the run of a recipe."""
    rows = map(json.loads, (path.parent / "run/metrics.jsonl").read_text().splitlines())
    return {row["step"]: row[key] for row in rows if key in row}


def train(kit, name, family="bert", ranks=1, nccl=False, overrides=(), **changes):
    """Trains to the end; returns the recipe's path. Failed where a loss or a gradient's norm is not finite."""
    path = recipe(kit, name, family, **changes)
    kit.tessera("train", path, *overrides, ranks=ranks, nccl=nccl)
    for key in ("loss", "grad_norm"):
        values = curve(path, key)
        wrong = [step for step, value in values.items() if not isinstance(value, (int, float)) or not math.isfinite(value)]
        if wrong or not values:
            raise Failed(f"{name}: {key} is not finite at step {wrong[0]}" if wrong else f"{name} logged no {key}")
    return path


def plain(kit, family):
    """The run that nothing was changed in, on the kit's device; made once."""
    path = kit.scratch / f"plain-{family}/recipe.yaml"
    made = (path.parent / "run/metrics.jsonl").exists() and len(curve(path)) == STEPS
    return path if made else train(kit, path.parent.name, family)


def distance(left, right, key="loss"):
    """The largest relative difference of two runs of the same steps."""
    ours, theirs = curve(left, key), curve(right, key)
    if ours.keys() != theirs.keys():
        raise Failed(f"{len(ours)} and {len(theirs)} steps")
    return max(abs(value - theirs[step]) / max(abs(theirs[step]), 1e-30) for step, value in ours.items())


def same(kit, left, right, tolerance, what):
    """A success' text; Failed where the curves are further apart."""
    found = distance(left, right)
    kit.values["distance"] = found
    if not found <= tolerance:
        raise Failed(f"{what}: losses differ by {found:.2g}, above {tolerance:g}")
    return f"{what}: losses differ by {found:.2g} at most"
