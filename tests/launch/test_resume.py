"""A run stopped at any instant resumes, on any number of ranks, and its curve continues; no sample is repeated or skipped."""
import itertools
import random
import shutil
import signal
import subprocess
import time

import numpy
import pytest
import runs
from tiers import slow_but

EVERY_10 = {"checkpoint": {"every": 10, "keep": 9}, "train": {"global_batch": 12, "micro_batch": 1}, "log": {"samples": True}}


def changes(**more):
    return {section: {**EVERY_10.get(section, {}), **more.get(section, {})} for section in {*EVERY_10, *more}}


@pytest.fixture(scope="module", params=list(runs.FAMILIES))
def whole(request, tmp_path_factory):
    """(family, folder) of an undisturbed run of 20 steps on one rank, with checkpoints at 10 and 20."""
    folder = tmp_path_factory.mktemp("whole")
    runs.must(runs.tessera("train", runs.recipe(folder, request.param, **changes())))
    return request.param, folder


def keep_until_step_10(source, target):
    """A copy of a run as it was when step 10 had been saved and a little more had been logged."""
    shutil.copytree(source, target)
    shutil.rmtree(target / "checkpoints/step-00000020")


def test_bit_identical_on_the_same_layout(whole, tmp_path):
    family, folder = whole
    keep_until_step_10(folder / "run", tmp_path / "run")
    runs.must(runs.tessera("train", runs.recipe(tmp_path, family, **changes())))
    assert runs.metrics(tmp_path / "run") == runs.metrics(folder / "run")
    expected, resumed = runs.tensors(folder / "run"), runs.tensors(tmp_path / "run")
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        assert numpy.array_equal(value, resumed[name]), name


@pytest.mark.parametrize("before,after", slow_but([(1, 2), (3, 2)], itertools.permutations([1, 2, 3, 4], 2)))
def test_other_rank_counts(before, after, whole, tmp_path):
    family, folder = whole
    if family == "gpt" and (before + after) % 2 == 0:
        pytest.skip("half of the pairs are enough for the second family")
    path = runs.recipe(tmp_path, family, **changes())
    runs.must(runs.tessera("train", path, "train.stop_after=10", ranks=before))
    assert max(runs.metrics(tmp_path / "run")) == 10
    runs.must(runs.tessera("train", path, ranks=after))
    assert runs.metrics(tmp_path / "run") == pytest.approx(runs.metrics(folder / "run"), rel=1e-5)
    seen = runs.samples(tmp_path / "run")
    assert seen == runs.samples(folder / "run")
    assert all(ids == list(range((step - 1) * 12, step * 12)) for step, ids in seen.items())


def start(path, ranks, *overrides):
    return subprocess.Popen([*runs.mpirun(ranks), runs.PROGRAM, "train", path, *overrides], stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, env=runs.environment(), cwd=runs.ROOT, start_new_session=True)


def kill_job(process, which):
    """SIGKILL to the ranks (`which`: all, or the index of the one that dies) as a dying machine or the kernel's killer of
    processes would; mpirun then ends what is left."""
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    chosen = ranks if which is None else ranks[which:which + 1]
    subprocess.run(["kill", "-9", *(chosen or [str(process.pid)])], stderr=subprocess.DEVNULL)
    process.communicate(timeout=30)


@pytest.mark.parametrize("ranks,steps,kills,delay", slow_but([(1, 120, 4, (0.25, 0.9))], [(1, 120, 4, (0.25, 0.9)), (1, 400, 30, (0.25, 0.9)),
                                                                                       (2, 400, 10, (0.7, 1.6))]))
def test_sigkill_loses_nothing(ranks, steps, kills, delay, tmp_path):
    """Killed at random instants, many while saving; whatever happens, the curve is the undisturbed one in the end."""
    often = {"checkpoint": {"every": 1, "keep": 2}, "train": {"steps": steps}}
    runs.must(runs.tessera("train", runs.recipe(tmp_path / "whole", **{**often, "checkpoint": {"every": 0}}), ranks=ranks))
    expected = runs.metrics(tmp_path / "whole/run")
    path = runs.recipe(tmp_path, **often)
    generator = random.Random(5)
    survived = 0
    while survived < kills:
        process = start(path, ranks)
        try:
            _, errors = process.communicate(timeout=generator.uniform(*delay))
            assert process.returncode == 0, errors
            shutil.rmtree(tmp_path / "run")  # finished too early: begin again until all kills have been survived
        except subprocess.TimeoutExpired:
            kill_job(process, generator.choice([None, 0, 1]) if ranks > 1 else None)
            survived += 1
    runs.must(runs.tessera("train", path, ranks=ranks))
    assert runs.metrics(tmp_path / "run") == expected


@pytest.mark.parametrize("ranks,number", slow_but([(1, signal.SIGINT), (2, signal.SIGTERM), (1, signal.SIGUSR1)],
                                                  itertools.product([1, 2], [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])))
def test_a_signal_saves_and_leaves(ranks, number, tmp_path):
    path = runs.recipe(tmp_path, train={"steps": 100000, "micro_batch": 8}, checkpoint={"every": 100000})
    process = start(path, ranks)
    deadline = time.time() + 30
    while not ((tmp_path / "run/metrics.jsonl").exists() and len(runs.metrics(tmp_path / "run")) > 3):
        assert time.time() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    for child in children if ranks > 1 else [process.pid]:
        subprocess.run(["kill", f"-{number.value}", str(child)], check=True)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number.value, errors
    assert f"stopped by {number.name}" in errors
    saved = sorted((tmp_path / "run/checkpoints").iterdir())
    assert len(saved) == 1 and saved[0].name == f"step-{max(runs.metrics(tmp_path / 'run')):08d}"
