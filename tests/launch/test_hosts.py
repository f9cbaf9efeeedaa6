"""Three hosts with two ranks each, over ssh and TCP: the curve of one rank, and a killed rank ends the job everywhere."""
import os
import signal
import subprocess
import time

import hosts
import pytest
import runs
from tiers import slow_but

REASON = hosts.why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

LAYOUT = {"parallel": {"shard": 3, "tensor": 2}, "train": {"global_batch": 18, "micro_batch": 6}}


@pytest.fixture(scope="module")
def three_hosts():
    with hosts.hosts(3) as machine:
        yield machine


def command(machine, recipe):
    variables = {"OMP_NUM_THREADS": "1", "TESSERA_TIMEOUT_SECONDS": "60"}
    exports = [word for key, value in variables.items() for word in ("-x", f"{key}={value}")]
    return [*machine.mpirun(2), *exports, "--wdir", str(runs.ROOT), str(runs.PROGRAM), "train", str(recipe)]


@pytest.mark.parametrize("family", slow_but(["gpt"], runs.FAMILIES))
def test_the_curve_of_one_rank(family, three_hosts, tmp_path):
    alone = {"train": {"global_batch": 18, "micro_batch": 18}}
    runs.must(runs.tessera("train", runs.recipe(tmp_path / "alone", family, **alone)))
    recipe = runs.recipe(tmp_path / "hosts", family, **LAYOUT)
    runs.must(subprocess.run(command(three_hosts, recipe), capture_output=True, text=True, timeout=150,
                             env=hosts.with_sbin()))
    expected, found = (runs.metrics(tmp_path / name / "run") for name in ("alone", "hosts"))
    worst = max(abs(found[step] / expected[step] - 1) for step in expected)
    print(f"{family} | 3 hosts x 2 ranks | loss {worst:.1e}")
    assert len(expected) == len(found) == 20 and worst < 1e-5


def test_a_killed_rank_ends_the_job_on_all_hosts(three_hosts, tmp_path):
    recipe = runs.recipe(tmp_path, "gpt", **LAYOUT, schedule={"name": "constant"})
    recipe.write_text(recipe.read_text().replace("steps: 20", "steps: 100000"))
    process = subprocess.Popen(command(three_hosts, recipe), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=hosts.with_sbin())
    try:
        wait_for_steps(tmp_path / "run/metrics.jsonl")
        victims = ranks(three_hosts)
        assert sorted(victims) == list(range(6))
        os.kill(victims[3], signal.SIGKILL)  # the second one of the second host
        begin = time.monotonic()
        output, _ = process.communicate(timeout=20)
        print(f"ended after {time.monotonic() - begin:.1f} s\n{output[-2000:]}")
        assert process.returncode != 0
        assert "rank 3" in output and "tessera-b" in output and "signal 9" in output
        assert not ranks(three_hosts)
    finally:
        process.kill()


def ranks(machine):
    """{rank: pid} of the job's processes."""
    found = {}
    for pid, environment in machine.processes().items():
        rank = environment.get("OMPI_COMM_WORLD_RANK")
        if rank is not None:
            found[int(rank)] = pid
    return found


def wait_for_steps(path):
    deadline = time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < 3:
        assert time.monotonic() < deadline, "the run does not come to its third step"
        time.sleep(0.2)
