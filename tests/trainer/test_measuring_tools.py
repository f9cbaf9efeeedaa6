"""What the tools that measure print is whole and adds up; the tools of the tests compute where they are told."""
import json
import os
import pathlib
import re
import subprocess

import pytest

BUILD = pathlib.Path(os.environ["TESSERA_BUILD"])
KERNELS = ["dropout", "residual_norm", "residual_norm_backward", "activation", "activation_backward", "cross_entropy"]
NO_GPU = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


def run(tool, *arguments, **environment):
    return subprocess.run([BUILD / f"tool_{tool}", *map(str, arguments)], capture_output=True, text=True, env={**NO_GPU, **environment})


def measured(tool, *arguments):
    done = run(tool, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("model", ["bert-mini", "gpt2-mini"])
def test_step(model, tmp_path):
    text, told = measured("step_benchmark", model, 2, 32, "fp32", "--steps", 4, "--threads", 1, "--attention-dropout", 0, "--parts",
                          "--json", tmp_path / "told.json")
    assert json.loads((tmp_path / "told.json").read_text()) == told
    assert {key: told[key] for key in ("model", "batch", "sequence", "dtype", "device", "steps")} == {
        "model": model, "batch": 2, "sequence": 32, "dtype": "fp32", "device": "cpu", "steps": 4}
    for key in ("mfu_of_sheet", "launches_per_step", "busy_share"):
        assert told[key] is None, key  # a CPU has none
    seconds = told["seconds"]
    assert 0 < seconds["least"] <= seconds["median"] <= seconds["most"]
    assert told["tokens_per_second"] == pytest.approx(64 / seconds["median"])
    assert told["mfu_of_gemm"] == pytest.approx(told["tokens_per_second"] * told["flops_per_token"] / told["gemm_tflops"] / 1e12)
    assert told["device_name"] and told["peak_memory_gib"] > 0.01 and told["loss"] > 0
    blocks = 4 * (12 * 256 * 256 + 13 * 256)
    if model == "gpt2-mini":
        assert told["parameters"] == blocks + (50257 + 1024 + 2) * 256
        weights = told["parameters"] - 1024 * 256
    else:
        heads = 2 * (256 * 256 + 256) + 512 + 30522 + 2 * 256 + 2
        assert told["parameters"] == blocks + (30522 + 512 + 2 + 2) * 256 + heads
        weights = told["parameters"] - 514 * 256 - 0.85 * 30522 * 256
    assert told["flops_per_token"] == pytest.approx(6 * weights + 12 * 4 * 256 * 32)
    times = [kernel["milliseconds_per_step"] for kernel in told["kernels"]]
    assert len(times) == 10 and times == sorted(times, reverse=True) and times[-1] > 0
    assert all(kernel["name"] and kernel["count_per_step"] > 0 for kernel in told["kernels"])
    assert sum(times) < 20e3 * seconds["most"]
    assert re.search(r"tok/s median.*\nforward [\d.]+ ms, backward [\d.]+ ms, clip and optimizer [\d.]+ ms\n", text)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype,size", [("fp32", 4), ("bf16", 2)])
def test_kernel(kernel, dtype, size):
    _, told = measured("kernel_bench", kernel, 64, 96, dtype, "--repeat", 3)
    assert {key: told[key] for key in ("kernel", "rows", "width", "dtype", "device", "repeat")} == {
        "kernel": kernel, "rows": 64, "width": 96, "dtype": dtype, "device": "cpu", "repeat": 3}
    moved = {"dropout": 2, "residual_norm": 4, "residual_norm_backward": 5, "activation": 2, "activation_backward": 3, "cross_entropy": 2}
    matrices = moved[kernel] * 64 * 96 * size
    assert matrices <= told["bytes"] < 1.1 * matrices
    assert told["gb_per_second"] == pytest.approx(told["bytes"] / told["seconds"]["median"] / 1e9)
    assert told["share_of_copy"] == pytest.approx(told["gb_per_second"] / told["copy_gb_per_second"])


@pytest.mark.parametrize("tool,arguments,message", [
    ("step_benchmark", ["bert-bas", 1, 8, "fp32"], "did you mean 'bert-base'"),
    ("step_benchmark", ["bert-mini", 1, 8, "fp32", "--step", 3], "did you mean '--steps'"),
    ("step_benchmark", ["bert-mini", 1, 8, "fp32", "--device", "cuda"], "no GPU can be used"),
    ("kernel_bench", ["drop", 1, 8, "fp32"], "valid: activation"),
    ("kernel_bench", ["dropout", 1, 8, "fp32", "--device", "cuda"], "no GPU can be used"),
])
def test_mistakes(tool, arguments, message):
    done = run(tool, *arguments)
    assert done.returncode == 2 and message in done.stderr and not done.stdout, done


@pytest.mark.parametrize("tool", ["model_oracle", "task_oracle", "optimizer", "generate"])
@pytest.mark.parametrize("device,message", [("banana", "unknown device 'banana'; valid: cpu, cuda"), ("cuda", "no GPU can be used")])
def test_tools_insist_on_their_device(tool, device, message):
    done = run(tool, "gpt", "none.h5", "none.h5", TESSERA_TEST_DEVICE=device)
    assert done.returncode != 0 and message in done.stderr, done
