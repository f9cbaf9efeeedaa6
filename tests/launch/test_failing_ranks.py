"""In every strategy a rank that is killed, hangs or cannot write ends the run within seconds, and is named.

TESSERA_MESHES=all runs the cases that continuous integration leaves out, too."""
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import time

import pytest
import runs

HOST = socket.gethostname()
LIMIT = 15  # seconds from the failure to the job's end; a quiet machine takes 2
WATCHDOG = 3

# name: (ranks, parallel, train)
STRATEGIES = {
    "zero 3": (2, {"shard": 2, "zero": 3}, {}),
    "replicate 2 x zero 1": (4, {"shard": 2, "zero": 1}, {}),
    "tensor 2": (2, {"tensor": 2}, {}),
    "ring 2": (2, {"context": 2}, {}),
    "ulysses 2": (2, {"context": 2, "context_method": "ulysses"}, {}),
    "pipeline 2": (2, {"pipeline": 2}, {}),
    "pipeline 2 x 2 chunks": (2, {"pipeline": 2, "pipeline_chunks": 2, "pipeline_schedule": "interleaved"}, {}),
    "zero 3 x pipeline 2": (4, {"shard": 2, "zero": 3, "pipeline": 2}, {}),
}


class Job:
    """A run of many steps under mpirun, and its processes by rank."""

    def __init__(self, folder, name, timeout=60, **changes):
        self.size, parallel, train = STRATEGIES[name]
        self.run = folder / "run"
        self.marker = f"TESSERA_TEST_MARKER={os.getpid()}-{time.monotonic_ns()}"
        recipe = runs.recipe(folder, "gpt", parallel=parallel, schedule={"warm_up": 0},
                             train={"steps": 100000, "micro_batch": 4, **train}, **changes)
        environment = runs.environment(TESSERA_TIMEOUT_SECONDS=timeout, **dict([self.marker.split("=")]))
        self.process = subprocess.Popen([*runs.mpirun(self.size), str(runs.PROGRAM), "train", str(recipe)], cwd=runs.ROOT,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def __enter__(self):
        deadline = time.monotonic() + 120
        while self.steps() < 5:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "the run does not come to its fifth step"
            time.sleep(0.05)
        return self

    def __exit__(self, *error):
        self.process.kill()
        for pid in self.ranks().values():
            os.kill(pid, signal.SIGKILL)

    def steps(self):
        """Lines written; the last may be under way."""
        path = self.run / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def ranks(self):
        """{rank: pid} of what runs."""
        found = {}
        for folder in pathlib.Path("/proc").iterdir():
            try:
                lines = (folder / "environ").read_text(errors="replace").split("\0") if folder.name.isdigit() else []
            except OSError:
                continue
            if self.marker in lines:
                found.update({int(line.split("=")[1]): int(folder.name) for line in lines
                              if line.startswith("OMPI_COMM_WORLD_RANK=")})
        return found

    def end(self, within):
        """What it wrote as errors, once it has ended with all of its processes."""
        begin = time.monotonic()
        _, errors = self.process.communicate(timeout=within)
        print(f"ended after {time.monotonic() - begin:.1f} s with code {self.process.returncode}\n{errors}")
        assert self.process.returncode not in (0, None)
        assert not self.ranks()
        return errors

    def reports(self, errors):
        """(rank, message) of those that spoke, who must have known the step; the log may be a step behind."""
        found = re.findall(rf"^tessera: rank (\d+) \({re.escape(HOST)}, step (\d+)\): (.*)$", errors, re.MULTILINE)
        for _, step, _ in found:
            assert self.steps() <= int(step) <= self.steps() + 2
        return [(int(rank), message) for rank, _, message in found]


def cases(few, more):
    return few + more if os.environ.get("TESSERA_MESHES") == "all" else few


@pytest.mark.parametrize("name, who", cases([(name, i % 2) for i, name in enumerate(STRATEGIES)],
                                            [(name, 1 - i % 2) for i, name in enumerate(STRATEGIES)]))
def test_a_killed_rank(name, who, tmp_path):
    with Job(tmp_path, name) as job:
        os.kill(job.ranks()[who], signal.SIGKILL)
        errors = job.end(LIMIT)
        assert f"process rank {who} " in errors and f"on node {HOST} exited on signal 9" in errors
        reports = job.reports(errors)
        assert any(rank != who and message.endswith(f": rank {who} ({HOST}) has died") for rank, message in reports)


@pytest.mark.parametrize("name, who", cases([("zero 3", 1), ("pipeline 2", 0), ("zero 3 x pipeline 2", 2)],
                                            [("tensor 2", 0), ("ring 2", 1), ("pipeline 2 x 2 chunks", 1)]))
def test_a_rank_that_hangs(name, who, tmp_path):
    with Job(tmp_path, name, timeout=WATCHDOG) as job:
        os.kill(job.ranks()[who], signal.SIGSTOP)
        reports = job.reports(job.end(WATCHDOG + LIMIT))
        waited = rf"(all-\w+|\w+-scatter|broadcast|send|receive) .*among \d+ ranks: .* has waited {WATCHDOG} s for rank {who} \({HOST}\)"
        assert any(rank != who and re.match(waited, message) for rank, message in reports)
        assert who not in [rank for rank, _ in reports]  # mpirun wakes it up to end it: it is not the one to complain


@pytest.mark.parametrize("name, who", cases([("zero 3", 0), ("pipeline 2", 1)], [("zero 3", 1)]))  # stage 1 speaks
def test_a_rank_that_cannot_write_its_samples(name, who, tmp_path):
    with Job(tmp_path, name, log={"samples": True}) as job:
        (tmp_path / "full").symlink_to("/dev/full")
        (tmp_path / "full").replace(job.run / f"samples/rank-{who}.jsonl")
        reports = job.reports(job.end(LIMIT))
        assert reports == [(who, f"{job.run}/samples/rank-{who}.jsonl: cannot be written: No space left on device")]
        assert job.process.returncode == 2


@pytest.mark.parametrize("name", cases(["pipeline 2"], ["zero 3"]))
def test_a_rank_that_cannot_save(name, tmp_path):
    """The thread that writes fails; the next save, 20 steps later, tells."""
    with Job(tmp_path, name, checkpoint={"every": 20}) as job:
        resource.prlimit(job.ranks()[1], resource.RLIMIT_NOFILE, (0, 0))
        reports = job.reports(job.end(60))
        assert [rank for rank, message in reports if message.endswith("cannot be made: Too many open files")] == [1]
