"""A rank that throws, hangs or is killed ends the job everywhere, within seconds, and says who it was."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

TOOL = Path(os.environ.get("TESSERA_BUILD", "build/release")) / "tool_fail"


def start(ranks, *arguments, timeout="60", mpirun=True):
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if mpirun else []
    environment = dict(os.environ, TESSERA_TIMEOUT_SECONDS=timeout, OMP_NUM_THREADS="1")
    return subprocess.Popen([*command, str(TOOL), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment)


def finish(process, within):
    begin = time.monotonic()
    try:
        output, errors = process.communicate(timeout=within)
    finally:
        process.kill()
    print(f"ended after {time.monotonic() - begin:.1f} s with code {process.returncode}\n{output}{errors}")
    return output, errors


def running(marker):
    """Processes of the tool whose environment holds the marker."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and marker.encode() in (folder / "environ").read_bytes():
                if (folder / "comm").read_text().strip() == "tool_fail":
                    found.append(folder.name)
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_stays_behind(monkeypatch):
    marker = f"TESSERA_TEST_MARKER={os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv(*marker.split("="))
    yield
    deadline = time.monotonic() + 10
    while running(marker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not running(marker)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("who", [0, 1])
def test_a_rank_that_throws(ranks, who):
    process = start(ranks, "throw", str(who))
    _, errors = finish(process, within=30)
    assert process.returncode == 1
    assert f"rank {who} ({socket.gethostname()}, step 3): a broken invariant" in errors
    assert errors.count("a broken invariant") == 1


@pytest.mark.parametrize("how", ["throw", "thread"])
def test_nothing_waits_for_others_between_an_error_and_its_message(how):
    process = start(2, how, "1", "stuck")
    _, errors = finish(process, within=30)
    assert process.returncode == 1
    assert f"rank 1 ({socket.gethostname()}, step 3): a broken invariant" in errors


def test_a_mistake_that_all_ranks_find_is_printed_once():
    process = start(3, "error")
    _, errors = finish(process, within=30)
    assert process.returncode == 2
    assert errors.count("there is no file data/none.h5") == 1


def test_a_rank_that_hangs_is_named_by_those_who_wait():
    process = start(2, "hang", "1", timeout="2")
    _, errors = finish(process, within=40)
    assert process.returncode == 1
    host = socket.gethostname()
    assert f"rank 0 ({host}, step 4): all-reduce of Float" in errors
    assert f"for rank 1 ({host})" in errors


@pytest.mark.parametrize("who", [0, 1])
def test_a_rank_that_is_killed(who):
    process = start(2, "pid", str(who))
    line = process.stdout.readline()
    os.kill(int(re.match(r"pid (\d+)", line).group(1)), signal.SIGKILL)
    _, errors = finish(process, within=30)
    assert process.returncode != 0
    assert f"rank {who}" in errors and "signal 9" in errors and socket.gethostname() in errors


def test_one_process_needs_no_mpirun():
    process = start(1, "throw", "0", mpirun=False)
    _, errors = finish(process, within=30)
    assert process.returncode == 1
    assert errors == "tessera: a broken invariant\n"


def test_srun_without_pmix_is_explained(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "1")
    process = start(1, "throw", "0", mpirun=False)
    _, errors = finish(process, within=30)
    assert process.returncode == 2
    assert "srun --mpi=pmix" in errors


def test_mpi_is_not_waited_for_by_computing_ranks():
    """Two ranks that only wait for a third take no processor."""
    process = start(2, "hang", "1", timeout="6")
    threading.Event().wait(3)
    ticks = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if (folder / "comm").read_text().strip() == "tool_fail":
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                ticks.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        except OSError:
            continue
    finish(process, within=40)
    assert len(ticks) >= 2
    assert max(ticks) < 2.0  # of 3 s, starting included
