"""What the checks make of the output of tools that only a GPU's machine has; the outputs are made up."""
import json
import pathlib

import checks
import pytest
from checks import kernels, peers, ranks, speed
from runner import Failed, Finished

NCU = '''==PROF== Connected to process 7
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","7","tessera::drop(x)","dram__bytes_read.sum","byte","3,000,000"
"0","7","tessera::drop(x)","dram__bytes_write.sum","byte","1,000,000"
"0","7","tessera::drop(x)","dram__throughput.avg.pct_of_peak_sustained_elapsed","%","81.5"
"0","7","tessera::drop(x)","gpu__time_duration.sum","ns","2,000"
"0","7","tessera::drop(x)","sm__warps_active.avg.pct_of_peak_sustained_active","%","90"
{"gb_per_second": 1}
'''
STEP = {"tokens_per_second": 1e5, "seconds": {"median": 0.1}, "mfu_of_gemm": 0.5, "gemm_tflops": 700.0, "mfu_of_sheet": None,
        "peak_memory_gib": 9.0, "launches_per_step": 900.0, "busy_share": 0.9, "kernels": [{"name": "gemm", "milliseconds_per_step": 3.0}]}


class Canned:
    """A kit whose commands all print the same."""
    threads, has_gpu, device, name = 4, True, "cuda", "check"

    def __init__(self, folder, output, code=0):
        self.root = self.bin = self.scratch = folder
        self.output, self.code, self.values, self.commands = output, code, {}, []

    def run(self, *command, **options):
        self.commands.append((list(map(str, command)), options))
        return Finished(self.code, self.output, 1.0)

    def mpirun(self, ranks):
        return ["mpirun", "-n", ranks]

    def knows(self, program, word):
        return True

    def json(self, path):
        return json.loads(self.output)


def test_counters_become_bandwidth(tmp_path, monkeypatch):
    (tmp_path / "tool_kernel_bench").touch()
    monkeypatch.setattr(speed, "find_program", lambda name: f"/opt/{name}")
    kit = Canned(tmp_path, NCU)
    assert speed.counters("dropout")(kit).startswith("2000 GB/s of device memory, 82 % of its peak, occupancy 90 %, 2 us")
    assert kit.values["launches"][0]["kernel"] == "tessera::drop(x)"
    with pytest.raises(Failed, match="none of our kernels"):
        speed.counters("dropout")(Canned(tmp_path, "==PROF== No kernels were profiled"))


def test_a_step_says_what_the_tool_knows(tmp_path):
    said = speed.step(("gpt2", 16, 1024))(Canned(tmp_path, json.dumps(STEP)))
    assert "100000 tokens/s, 100.0 ms a step" in said and "900 launches" in said and "gemm 3.00 ms" in said and "989" not in said


def test_a_sanitizer_must_have_seen_tests(tmp_path):
    clean = "[  PASSED  ] 4 tests.\n========= ERROR SUMMARY: 0 errors\n"
    assert kernels.sanitize("memcheck")(Canned(tmp_path, clean)) == "4 tests passed, nothing found"
    for output in ("[  PASSED  ] 0 tests.\n========= ERROR SUMMARY: 0 errors\n", "[  PASSED  ] 4 tests.\n"):
        with pytest.raises(Failed):
            kernels.sanitize("memcheck")(Canned(tmp_path, output))


def test_on_a_gpu_no_kernel_test_may_be_skipped(tmp_path):
    with pytest.raises(Failed, match="18 were skipped"):
        kernels.google_test("test_trainer", "*")(Canned(tmp_path, "[  PASSED  ] 23 tests.\n[  SKIPPED ] 18 tests, listed below:\n"))


@pytest.mark.parametrize("code,output", [(0, "a broken invariant"), (1, "something else")])
def test_a_job_that_ends_wrongly_is_seen(code, output, tmp_path):
    with pytest.raises(Failed):
        ranks.ending("throw", 25, "a broken invariant", True)(Canned(tmp_path, output, code))
    assert ranks.ending("throw", 25, "a broken invariant", True)(Canned(tmp_path, "a broken invariant", 1)).endswith("code 1")


def test_the_peers_sizes_are_added_to(tmp_path):
    script = tmp_path / "peers/hf_step.py"
    script.parent.mkdir()
    script.write_text('dims = {"base": (12, 768, 12)}\nBertConfig(intermediate_size=4 * D)\nGPT2Config(n_positions=1024)')
    kit = Canned(tmp_path, "gpt2-1.5b params 1557M bf16 eager threads 4 b4 s1024: 9000 tok/s median, best 9100, 450 ms/step, model 1 GFLOP/s")
    assert peers.peer("gpt2-1.5b", 4, 1024, compiled=True)(kit) == "9000 tokens/s, 450 ms a step"
    started = pathlib.Path(kit.commands[0][0][1]).read_text()
    assert '"1.5b": (48, 1600, 25)' in started and '"base"' in started and started.count("=0.0") == 2 and "--compile" in kit.commands[0][0]


def test_every_check_has_its_place():
    names = [check.name for check in checks.ALL]
    assert len(set(names)) == len(names) > 50
    assert names[0] == "versions" and names[-1].startswith("compiled-peer/")
    assert names.index("doctor") < names.index("validate")  # which plans with its figures
    assert all(any(name.startswith(beginning) for name in names) for beginning in checks.FIRST)
