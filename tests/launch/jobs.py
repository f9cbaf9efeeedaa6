"""Runs that are watched, and ended, while they go on."""
import contextlib
import os
import pathlib
import signal
import subprocess
import time

import runs


class Job:
    """`tessera train` under mpirun from its first `steps` steps (each of them logged) to the end of the `with` block."""

    def __init__(self, recipe, ranks, arguments=(), steps=1, **environment):
        self.folder = recipe.parent / "run"
        self.first_steps = steps
        marker = f"{os.getpid()}-{time.monotonic_ns()}"
        self.marker = f"TESSERA_TEST_MARKER={marker}"
        self.process = subprocess.Popen([*runs.mpirun(ranks), str(runs.PROGRAM), "train", str(recipe), *arguments], cwd=runs.ROOT,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=runs.environment(**environment, TESSERA_TEST_MARKER=marker))

    def __enter__(self):
        deadline = time.monotonic() + 300
        while self.steps() < self.first_steps:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"the run does not come to step {self.first_steps}"
            time.sleep(0.05)
        return self

    def __exit__(self, *error):
        self.process.kill()
        for pid in self.ranks().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def steps(self):
        """Lines written; the last may be under way."""
        path = self.folder / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def ranks(self):
        """{rank: pid} of what runs; a process alone is rank 0."""
        found = {}
        for folder in pathlib.Path("/proc").iterdir():
            try:
                lines = (folder / "environ").read_text(errors="replace").split("\0") if folder.name.isdigit() else []
                if self.marker in lines and (folder / "comm").read_text().startswith("tessera"):
                    variables = dict(line.split("=", 1) for line in lines if "=" in line)
                    found[int(variables.get("OMPI_COMM_WORLD_RANK", 0))] = int(folder.name)
            except OSError:
                continue
        return found
