"""Starts the program as a user would: small data, small recipes, mpirun; used by all tests that drive whole runs."""
import argparse
import ast
import functools
import hashlib
import inspect
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import typing
import unittest.mock

import h5py
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("TESSERA_BUILD", ROOT / "build/release"))
PROGRAM = BUILD / "tessera"
SCRATCH = BUILD / "test_data"
# Where runs and the tools under tests/tools compute: cpu, or cuda on a machine that has one. Unset: as recipes have it.
DEVICE = os.environ.get("TESSERA_TEST_DEVICE")
assert DEVICE in (None, "cpu", "cuda"), f"TESSERA_TEST_DEVICE={DEVICE}: valid: cpu, cuda"


def mpirun(ranks):
    """The words before the program: nothing for one rank, as a user on one device would start it."""
    if ranks == 1:
        return []
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", "TESSERA_TIMEOUT_SECONDS": "60", **{k: str(v) for k, v in more.items()}}


def tessera(*arguments, ranks=1, timeout=300, env=None, cwd=None):
    """Runs to the end; returns the CompletedProcess with stdout and stderr as text."""
    return subprocess.run([*mpirun(ranks), PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                          env=environment(**(env or {})), cwd=cwd or ROOT)


def must(process):
    assert process.returncode == 0, f"exit code {process.returncode}\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}"
    return process


def english():
    """Real text that every Debian machine has: licences and Python's own documentation strings."""
    texts = [path.read_text(errors="replace") for path in sorted(pathlib.Path("/usr/share/common-licenses").iterdir()) if path.is_file()]
    for module in (argparse, ast, inspect, typing, unittest.mock):
        tree = ast.parse(pathlib.Path(module.__file__).read_text())
        texts += [node.value.value for node in ast.walk(tree)
                  if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]
    return "\n\n".join(" ".join(paragraph.split()) for text in texts for paragraph in text.split("\n\n") if len(paragraph) > 40)


@functools.lru_cache
def data(kind):
    """A folder with train.h5 and validation.h5, prepared once: kind "wordpiece" (for BERT) or "byte_level_bpe" (for GPT)."""
    text = english()
    key = hashlib.sha256((text + kind + str(PROGRAM.stat().st_mtime_ns)).encode()).hexdigest()[:12]
    folder = SCRATCH / f"{kind}-{key}"
    if not folder.exists():
        SCRATCH.mkdir(parents=True, exist_ok=True)
        work = pathlib.Path(tempfile.mkdtemp(dir=SCRATCH))
        (work / "text.txt").write_text(text)
        must(tessera("prepare", work / "text.txt", "--output", work / "out", "--train-tokenizer", kind, "--vocab-size", 600,
                     "--validation", "0.1"))
        try:
            (work / "out").rename(folder)
        except OSError:
            assert folder.exists()
        shutil.rmtree(work)
    return folder


FAMILIES = {
    "bert": {"kind": "wordpiece", "model": {"family": "bert"}, "objective": {"name": "mlm_nsp"}},
    "gpt": {"kind": "byte_level_bpe", "model": {"family": "gpt"}, "objective": {"name": "causal_lm"}},
}


def recipe(folder, family="bert", **changes):
    """Writes a small recipe into `folder` and returns its path; changes are nested as in the file. `whole_model`
    and `whole_objective` stand for all keys of theirs."""
    chosen = FAMILIES[family]
    content = {
        "run": {"folder": str(folder / "run"), "seed": 7},
        "model": {**chosen["model"], "num_layers": 4, "hidden_size": 32, "num_heads": 4, "feed_forward_size": 64,
                  "max_positions": 32, "dropout": 0.1},
        "objective": dict(chosen["objective"]),
        "data": {"train": str(data(chosen["kind"]) / "train.h5"), "validation": str(data(chosen["kind"]) / "validation.h5"),
                 "sequence_length": 32},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01},
        "schedule": {"name": "linear", "warm_up": 2},
        "train": {"steps": 20, "global_batch": 16, "micro_batch": 4, "precision": "fp32", "clip": 1.0},
        "checkpoint": {"every": 0},
        "evaluate": {"every": 0},
        "log": {"every": 1, "tensorboard": False},
    }
    if DEVICE:
        content["train"]["device"] = DEVICE
    for section in ("model", "objective"):
        content[section] = changes.pop("whole_" + section, content[section])
    for section, values in changes.items():
        content.setdefault(section, {}).update(values)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def rewritten(path, **sections):
    """The recipe with whole sections replaced."""
    content = yaml.safe_load(path.read_text())
    content.update(sections)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def metrics(run_folder, key="loss"):
    """{step: value} of metrics.jsonl; a step written twice is an error."""
    values = {}
    for line in (pathlib.Path(run_folder) / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if key in row:
            assert row["step"] not in values, f"step {row['step']} stands twice in {run_folder}"
            values[row["step"]] = row[key]
    return values


def tensors(run, step=20, optimizer=True):
    """All real tensors of a checkpoint, by name."""
    with h5py.File(run / f"checkpoints/step-{step:08d}/checkpoint.h5") as file:
        found = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) and item.dtype.kind == "f" else None)
    assert any(name.startswith("model/") for name in found) and (any(name.startswith("optimizer/") for name in found) or not optimizer)
    return found


def samples(run):
    """{step: sorted ids} over all ranks' files; later lines of a step replace earlier ones (a step done again after a crash)."""
    steps = {}
    for path in (run / "samples").iterdir():
        own = {}
        for line in path.read_text().splitlines():
            row = json.loads(line)
            own[row["step"]] = row["samples"]
        for step, ids in own.items():
            steps.setdefault(step, []).extend(ids)
    return {step: sorted(ids) for step, ids in steps.items()}
