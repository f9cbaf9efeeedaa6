"""In every strategy a rank that is killed, hangs or cannot write ends the run within seconds, and is named."""
import os
import re
import resource
import signal
import socket
import time

import jobs
import pytest
import runs
from tiers import slow_but

HOST = socket.gethostname()
LIMIT = 15  # seconds from the failure to the job's end; a quiet machine takes 2
WATCHDOG = 3

# name: (ranks, parallel)
STRATEGIES = {
    "zero 3": (2, {"shard": 2, "zero": 3}),
    "replicate 2 x zero 1": (4, {"shard": 2, "zero": 1}),
    "tensor 2": (2, {"tensor": 2}),
    "ring 2": (2, {"context": 2}),
    "ulysses 2": (2, {"context": 2, "context_method": "ulysses"}),
    "pipeline 2": (2, {"pipeline": 2}),
    "pipeline 2 x 2 chunks": (2, {"pipeline": 2, "pipeline_chunks": 2, "pipeline_schedule": "interleaved"}),
    "zero 3 x pipeline 2": (4, {"shard": 2, "zero": 3, "pipeline": 2}),
}


def job(folder, name, timeout=60, **changes):
    ranks, parallel = STRATEGIES[name]
    recipe = runs.recipe(folder, "gpt", parallel=parallel, schedule={"warm_up": 0}, train={"steps": 100000, "micro_batch": 4},
                         **changes)
    return jobs.Job(recipe, ranks, steps=5, TESSERA_TIMEOUT_SECONDS=timeout)


def end(run, within):
    """What it wrote as errors, once it has ended with all of its processes."""
    begin = time.monotonic()
    _, errors = run.process.communicate(timeout=within)
    print(f"ended after {time.monotonic() - begin:.1f} s with code {run.process.returncode}\n{errors}")
    assert run.process.returncode not in (0, None)
    assert not run.ranks()
    return errors


def reports(run, errors):
    """(rank, message) of those that spoke, who must have known the step; the log may be a step behind."""
    found = re.findall(rf"^tessera: rank (\d+) \({re.escape(HOST)}, step (\d+)\): (.*)$", errors, re.MULTILINE)
    for _, step, _ in found:
        assert run.steps() <= int(step) <= run.steps() + 2
    return [(int(rank), message) for rank, _, message in found]


@pytest.mark.parametrize("name, who", slow_but([("zero 3", 0), ("tensor 2", 1), ("ring 2", 1), ("pipeline 2", 1)],
                                               [(name, who) for name in STRATEGIES for who in (0, 1)]))
def test_a_killed_rank(name, who, tmp_path):
    with job(tmp_path, name) as run:
        os.kill(run.ranks()[who], signal.SIGKILL)
        errors = end(run, LIMIT)
        assert f"process rank {who} " in errors and f"on node {HOST} exited on signal 9" in errors
        told = reports(run, errors)
        assert any(rank != who and message.endswith(f": rank {who} ({HOST}) has died") for rank, message in told)


@pytest.mark.parametrize("name, who", slow_but([("zero 3", 1), ("pipeline 2", 0)],
                                               [("zero 3", 1), ("pipeline 2", 0), ("zero 3 x pipeline 2", 2), ("tensor 2", 0), ("ring 2", 1),
                                                ("pipeline 2 x 2 chunks", 1)]))
def test_a_rank_that_hangs(name, who, tmp_path):
    with job(tmp_path, name, timeout=WATCHDOG) as run:
        os.kill(run.ranks()[who], signal.SIGSTOP)
        told = reports(run, end(run, WATCHDOG + LIMIT))
        waited = rf"(all-\w+|\w+-scatter|broadcast|send|receive) .*among \d+ ranks: .* has waited {WATCHDOG} s for rank {who} \({HOST}\)"
        assert any(rank != who and re.match(waited, message) for rank, message in told)
        assert who not in [rank for rank, _ in told]  # mpirun wakes it up to end it: it is not the one to complain


@pytest.mark.parametrize("name, who", slow_but([("pipeline 2", 1)], [("zero 3", 0), ("zero 3", 1), ("pipeline 2", 1)]))  # stage 1 speaks
def test_a_rank_that_cannot_write_its_samples(name, who, tmp_path):
    with job(tmp_path, name, log={"samples": True}) as run:
        (tmp_path / "full").symlink_to("/dev/full")
        (tmp_path / "full").replace(run.folder / f"samples/rank-{who}.jsonl")
        told = reports(run, end(run, LIMIT))
        assert told == [(who, f"{run.folder}/samples/rank-{who}.jsonl: cannot be written: No space left on device")]
        assert run.process.returncode == 2


@pytest.mark.parametrize("name", slow_but(["zero 3"], ["pipeline 2", "zero 3"]))
def test_a_rank_that_cannot_save(name, tmp_path):
    """The thread that writes fails; the next save, 20 steps later, tells."""
    with job(tmp_path, name, checkpoint={"every": 20}) as run:
        resource.prlimit(run.ranks()[1], resource.RLIMIT_NOFILE, (0, 0))
        told = reports(run, end(run, 60))
        assert [rank for rank, message in told if message.endswith("cannot be made: Too many open files")] == [1]
