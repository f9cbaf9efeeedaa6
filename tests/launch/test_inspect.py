"""tessera inspect shows what is in checkpoints, runs and data files, and finds damage."""
import os
import pathlib
import subprocess

import h5py
import numpy as np
import pytest

BUILD = pathlib.Path(os.environ.get("TESSERA_BUILD", "build/release"))


def inspect(*arguments):
    return subprocess.run([BUILD / "tessera", "inspect", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def fails(*arguments):
    run = inspect(*arguments)
    assert run.returncode == 2, run.stdout + run.stderr
    assert run.stderr.startswith("tessera: ")
    return run.stderr


@pytest.fixture
def run_folder(tmp_path):
    for step in (4, 5):
        subprocess.run([BUILD / "tool_checkpoint", "write", tmp_path / "checkpoints", str(step), "2"], check=True, capture_output=True)
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "loss": 2.5}\n{"step": 4, "validation_loss": 2.25}\n{"step": 5, "loss": 2.0}\n{"ste')
    return tmp_path


def test_a_checkpoint_is_shown_and_verified(run_folder):
    run = inspect(run_folder / "checkpoints/step-00000005", "--verify")
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    assert ["step", "5,", "320", "samples,", "seed", "7,", "written", "by", "Tessera", "0.1.0"] in lines
    assert ["model/weight", "f32", "[600,", "300]", "720.0", "kB"] in lines
    assert ["model/scale", "f32", "[]", "4", "bytes"] in lines
    assert ["optimizer/exp_avg", "1", "tensors", "180000", "elements", "720.0", "kB"] in lines
    assert "run: {seed: 7}" in run.stdout and "2 shards" in run.stdout and "validation loss 0.2" in run.stdout
    assert "verified: all checksums match" in run.stdout
    assert "optimizer/exp_avg/weight" not in run.stdout
    assert "optimizer/exp_avg/weight" in inspect(run_folder / "checkpoints/step-00000005", "--all").stdout


def test_a_run_is_shown(run_folder):
    run = inspect(run_folder, "--verify")
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    assert ["loss", "2.0", "at", "step", "5"] in lines and ["validation_loss", "2.25", "at", "step", "4"] in lines
    assert sum(line[:1] in (["step-00000004"], ["step-00000005"]) and line[-1] == "verified" for line in lines) == 2
    assert "checkpoints (2)" in inspect(run_folder / "checkpoints").stdout


def test_damage_ends_with_one_message_and_code_2(run_folder):
    step = run_folder / "checkpoints/step-00000005"
    shard = step / "shard-00001.h5"
    whole = shard.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    shard.write_bytes(flipped)
    assert inspect(step).returncode == 0  # the structure is whole
    assert "shard-00001.h5: damaged: the checksum of tensor" in fails(step, "--verify")
    assert "checksum" in fails(run_folder, "--verify")
    shard.write_bytes(whole[:-1])
    assert f"has {len(whole) - 1} bytes instead of {len(whole)}" in fails(step)
    shard.unlink()
    assert "shard-00001.h5: missing" in fails(step)
    message = fails(run_folder)
    assert "shard-00001.h5: missing" in message and "step-00000004" in inspect(run_folder).stdout


def test_data_files_are_shown(tmp_path):
    folder = tmp_path / "nvidia"
    folder.mkdir()
    shapes = {"input_ids": 128, "input_mask": 128, "segment_ids": 128, "masked_lm_positions": 20, "masked_lm_ids": 20}
    with h5py.File(folder / "phase1.h5", "w") as file:
        for name, width in shapes.items():
            file[name] = np.zeros((3, width), np.int8 if name in ("input_mask", "segment_ids") else np.int32)
        file["next_sentence_labels"] = np.zeros(3, np.int8)
    for path in (folder, folder / "phase1.h5"):
        output = inspect(path).stdout
        assert "NVIDIA BERT file" in output and "3 examples" in output and "sequences of 128 tokens" in output
    (tmp_path / "text.h5").write_text("not HDF5 at all" * 400)
    assert "text.h5: not an HDF5 file" in fails(tmp_path / "text.h5")
    (tmp_path / "text.h5").unlink()
    assert "no checkpoint here; the folder holds: nvidia" in fails(tmp_path)
    assert "no such file or folder" in fails(tmp_path / "absent")


def test_a_prepared_dataset_is_shown_and_verified(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"The package number {i} does {i * 7} things.\nIt does them well." for i in range(400)))
    subprocess.run([BUILD / "tessera", "prepare", text, "--output", tmp_path / "data", "--train-tokenizer", "wordpiece", "--vocab-size", "300"],
                   check=True, capture_output=True)
    run = inspect(tmp_path / "data", "--verify")
    assert run.returncode == 0, run.stderr
    assert "train.h5" in run.stdout and "tokenizer WordPiece" in run.stdout and run.stdout.count("verified") >= 1
    tokens = int(next(line for line in run.stdout.splitlines() if " tokens, " in line).split()[0])
    assert tokens > 4000 and "unigram entropy" in run.stdout
    train = tmp_path / "data" / "train.h5"
    flipped = bytearray(train.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    train.write_bytes(flipped)
    assert "train.h5" in fails(train, "--verify")
