"""Checkpoints as others see them: h5py and h5dump read them, and killing the writer at any instant loses nothing."""
import os
import pathlib
import random
import signal
import subprocess
import time

import h5py
import numpy as np
import pytest
from tiers import slow_but

TOOL = pathlib.Path(os.environ.get("TESSERA_BUILD", "build/release")) / "tool_checkpoint"


def tool(*arguments):
    run = subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


def expected(step):
    return np.arange(600 * 300, dtype=np.float32).reshape(600, 300) + np.float32(step)


@pytest.mark.parametrize("ranks", [1, 3])
def test_h5py_reads_every_tensor_at_its_global_shape(tmp_path, ranks):
    tool("write", tmp_path, 5, ranks)
    moved = tmp_path / "moved"
    (tmp_path / "step-00000005").rename(moved)
    assert len(list(moved.glob("shard-*.h5"))) == ranks
    with h5py.File(moved / "checkpoint.h5") as file:
        assert file.attrs["step"] == 5 and file.attrs["samples"] == 320 and file.attrs["seed"] == 7
        assert file.attrs["score"] == 0.2 and file.attrs["format_version"] == 1
        assert file["recipe"].asstr()[()] == "run: {seed: 7}\n"
        assert file["tokenizer"].asstr()[()] == '{"version": "1.0"}'
        weight = file["model/weight"]
        assert weight.is_virtual and weight.dtype == np.float32 and weight.shape == (600, 300)
        np.testing.assert_array_equal(weight[()], expected(5))
        np.testing.assert_array_equal(weight[190:210, 7], expected(5)[190:210, 7])
        np.testing.assert_array_equal(file["model/bias"][()], expected(5)[0])
        np.testing.assert_array_equal(file["optimizer/exp_avg/weight"][()], -expected(5))
        np.testing.assert_array_equal(file["optimizer/count/weight"][()], [0, 1, 2])
        assert file["model/scale"][()] == 5
        np.testing.assert_array_equal(file["model/half"].astype(np.float32)[()], bfloat16(expected(5)[:2]))


def bfloat16(values):
    """Rounded to the nearest even, as a float again."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def test_h5dump_reads_them(tmp_path):
    tool("write", tmp_path, 5, 2)
    main = tmp_path / "step-00000005" / "checkpoint.h5"
    header = subprocess.run(["h5dump", "-p", "-H", main], capture_output=True, text=True, check=True).stdout
    assert "VIRTUAL" in header and "shard-00001.h5" in header
    values = subprocess.run(["h5dump", "-d", "/model/weight", "-s", "599,298", "-c", "1,2", main], capture_output=True, text=True, check=True)
    assert "180003, 180004" in values.stdout, values.stdout


def test_a_hidden_or_unfinished_folder_is_no_checkpoint(tmp_path):
    (tmp_path / ".step-00000009.tmp-host@1@1").mkdir()
    assert tool("check", tmp_path) == "none\n"
    (tmp_path / "step-00000009").mkdir()
    lines = tool("check", tmp_path).splitlines()
    assert lines[0].startswith("skipped: ") and "step-00000009" in lines[0] and lines[1] == "none"


@pytest.mark.parametrize("attempts,least", slow_but([(8, 1)], [(8, 1), (30, 6)]))
def test_killed_at_random_instants_the_newest_is_whole(attempts, least, tmp_path):
    generator = random.Random(1)
    while_saving = 0
    for attempt in range(attempts):
        folder = tmp_path / f"{attempt % 2}"  # resumed and killed again and again
        with subprocess.Popen([TOOL, "loop", folder, str(1 + attempt % 2)], stdout=subprocess.PIPE, text=True) as run:
            said = [int(run.stdout.readline())]
            time.sleep(generator.uniform(0, 0.2))
            run.send_signal(signal.SIGKILL)
            said += [int(line) for line in run.stdout.read().split()]
        leftovers = list(folder.glob(".step-*"))
        assert len(leftovers) <= 2, leftovers  # being written, being removed: those of earlier runs are gone
        while_saving += bool(leftovers)
        *skipped, newest = tool("check", folder).splitlines()
        assert not skipped
        # save() of a step returns when the step before is in place.
        assert said[-1] == 1 or int(newest.split()[0]) >= said[-1] - 1
    assert while_saving >= least, "too few runs were killed while they saved"
