"""The kit's own parts on a machine without a GPU: blanking of fat binaries, library paths, limits of time, results."""
import contextlib
import json
import pathlib
import struct
import subprocess
import sys
import tarfile
import time

import elf
import fatbin
import pytest
import runner


def fat_binary(*entries):
    """`entries` are (kind, architecture, payload)."""
    body = b""
    for kind, architecture, payload in entries:
        header = bytearray(struct.pack("<HHIQ", kind, 0x101, 64, len(payload)).ljust(64, b"\0"))
        struct.pack_into("<I", header, fatbin.ARCHITECTURE, architecture)
        body += header + payload
    return struct.pack("<IHHQ", fatbin.MAGIC, 1, 16, len(body)) + body


def library(tmp_path, **sections):
    """A real shared library with extra sections."""
    path = tmp_path / "library.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", path, "-Wl,-rpath,/a/long/folder/of/this/machine"],
                   input=b"int answer(void) { return 42; }", check=True)
    for name, data in sections.items():
        (tmp_path / name).write_bytes(data)
        subprocess.run(["objcopy", "--add-section", f"{name}={tmp_path / name}", path], check=True)
    return bytearray(path.read_bytes())


def test_only_the_code_for_other_gpus_is_blanked(tmp_path):
    first = fat_binary((2, 80, b"A" * 40), (2, 90, b"B" * 48), (1, 120, b"C" * 32))
    second = fat_binary((2, 100, b"D" * 16), (2, 90, b"E" * 24))
    data = library(tmp_path, **{".nv_fatbin": first + bytes(24) + second, "__nv_relfatbin": fat_binary((2, 75, b"F" * 8))})
    size = len(data)
    kept, blanked = fatbin.blank(data, {90})
    assert kept == {90: 2} and blanked == 40 + 32 + 16 + 8 and len(data) == size
    assert b"B" * 48 in data and b"E" * 24 in data
    for gone in (b"A" * 40, b"C" * 32, b"D" * 16, b"F" * 8):
        assert gone not in data
    found = elf.sections(data)
    headers = [each[:2] for name in fatbin.SECTIONS for each in fatbin.entries(data, *found[name][:2])]
    assert headers == [(2, 80), (2, 90), (1, 120), (2, 100), (2, 90), (2, 75)]  # what the runtime looks through is whole


def test_a_library_without_code_for_the_gpu_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no code for"):
        fatbin.blank(library(tmp_path, **{".nv_fatbin": fat_binary((2, 80, b"A" * 40))}), {90})


def test_an_entry_that_ends_elsewhere_is_refused(tmp_path):
    wrong = bytearray(fat_binary((2, 90, b"A" * 40)))
    struct.pack_into("<Q", wrong, 16 + 8, 4000)  # the payload's size
    with pytest.raises(ValueError, match="does not end"):
        fatbin.blank(library(tmp_path, **{".nv_fatbin": bytes(wrong)}), {90})


def test_the_library_path_is_replaced(tmp_path):
    data = library(tmp_path)
    elf.set_search_path(data, "$ORIGIN/../lib")
    assert elf.search_path(data)[2] == "$ORIGIN/../lib"
    (tmp_path / "moved.so").write_bytes(data)
    dynamic = subprocess.run(["readelf", "-d", tmp_path / "moved.so"], capture_output=True, text=True, check=True).stdout
    assert "Library rpath: [$ORIGIN/../lib]" in dynamic and "RUNPATH" not in dynamic
    with pytest.raises(elf.NotElf, match="does not fit"):
        elf.set_search_path(data, "x" * 100)


class FakeKit:
    """What runner asks of a kit."""

    def __init__(self, folder):
        self.folder, self.values, self.deadline = folder, {}, 0.0
        (folder / "logs").mkdir()

    def lacks(self, need):
        return f"no {need} here"

    def begin(self, name, deadline):
        self.path, self.deadline = self.folder / "logs" / runner.log_name(name), deadline

    def log(self, text):
        with self.path.open("a") as file:
            file.write(text)

    def run(self, *command):
        return runner.run_command(command, self.path, self.deadline - time.monotonic())


def running(command):
    """Whether a process with these words is left."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == command:
                return True
    return False


def hang(kit):
    # A child in a group of its own, as mpirun's are: killing the group of the parent would leave it.
    kit.run(sys.executable, "-c", "import os, subprocess, time\n"
            "subprocess.Popen(['sleep', '4321'], preexec_fn=lambda: os.setpgid(0, 0))\ntime.sleep(4321)")


def fail(kit):
    raise runner.Failed("it is\nbroken")


def crash(kit):
    return [][0]


def succeed(kit):
    kit.values["speed"] = 3
    return kit.run("echo", "hello").output.strip()


def test_a_command_is_killed_on_purpose(tmp_path):
    marker = tmp_path / "marker"
    done = runner.run_command(["sh", "-c", f"touch {marker}; sleep 4322"], tmp_path / "log", 30, kill_when=marker.exists)
    assert done.code == -9 and done.seconds < 5


def all_of(tmp_path, *checks, budget=60.0, only=()):
    kit, results = FakeKit(tmp_path), runner.Results(tmp_path)
    failed = runner.run_all(runner.chosen(checks, only), kit, results, budget)
    return failed, {each["name"]: each for each in json.loads((tmp_path / "results.json").read_text())["checks"]}


def test_nothing_stops_the_rest(tmp_path):
    failed, found = all_of(tmp_path, runner.Check("a/hang", hang, 1), runner.Check("b", fail, 9), runner.Check("c", crash, 9),
                           runner.Check("d", succeed, 9, ("gpu",)), runner.Check("e", succeed, 9))
    assert failed == 3
    assert [each["verdict"] for each in found.values()] == ["FAIL", "FAIL", "FAIL", "SKIP", "PASS"]
    assert "killed after 1 s" in found["a/hang"]["reason"] and found["b"]["reason"] == "it is broken"
    assert "IndexError" in found["c"]["reason"] and found["d"]["reason"] == "no gpu here"
    assert found["e"]["reason"] == "hello" and found["e"]["values"] == {"speed": 3}
    assert not running(b"sleep\x004321\x00")


def test_the_budget_is_kept(tmp_path):
    start = time.monotonic()
    failed, found = all_of(tmp_path, runner.Check("a", hang, 100), runner.Check("b", succeed, 9), budget=2)
    assert time.monotonic() - start < 4 and failed == 0
    assert all(each["verdict"] == "SKIP" and "no time left" in each["reason"] for each in found.values())


def test_results_are_whole_after_every_check(tmp_path):
    seen = []

    def look(kit):
        path = tmp_path / "results.json"
        seen.append(len(json.loads(path.read_text())["checks"]) if path.exists() else 0)

    all_of(tmp_path, *[runner.Check(name, look, 9) for name in "abc"])
    assert seen == [0, 1, 2]


def test_only_some(tmp_path):
    checks = [runner.Check(name, succeed, 9) for name in ("train/bf16", "train/fp16", "speed/gpt2")]
    _, found = all_of(tmp_path, *checks, only=["train/f", "speed"])
    assert list(found) == ["train/fp16", "speed/gpt2"]
    with pytest.raises(KeyError, match="no check begins with tarin; valid: train/bf16"):
        runner.chosen(checks, ["tarin"])


def test_results_are_packed_with_the_ends_of_logs(tmp_path):
    all_of(tmp_path, runner.Check("a", lambda kit: kit.log("x" * 5000 + "end"), 9))
    runner.pack_results(tmp_path / "results.json", tmp_path / "logs", tmp_path / "results.tar.gz", most_of_a_log=1000)
    with tarfile.open(tmp_path / "results.tar.gz") as tar:
        assert sorted(tar.getnames()) == ["results/logs/a.log", "results/results.json"]
        log = tar.extractfile("results/logs/a.log").read()
    assert len(log) < 1100 and log.endswith(b"end")
