"""parallel.offload moves masters and state, and changes no bit of a run. Without a GPU both places are the host's memory, but the
steps go the same way; with one the optimizer steps on another device, which rounds in its own way."""
import numpy
import pytest
import runs
from tiers import slow_but

ON_GPU = runs.DEVICE == "cuda"
LAYOUTS = {
    "one rank": (1, {}, "optimizer"),
    "replicate": (2, {}, "optimizer"),
    "zero 1": (2, {"shard": 2, "zero": 1}, "optimizer"),
    "zero 3": (2, {"shard": 2}, "optimizer"),
    "zero 3, parameters": (2, {"shard": 2, "prefetch": 2}, "parameters"),
    "zero 3 x tensor 2, parameters": (4, {"shard": 2, "tensor": 2}, "parameters"),
    "zero 3 x pipeline 2, parameters": (4, {"shard": 2, "pipeline": 2}, "parameters"),
}
FAST = [("one rank", "bf16"), ("zero 1", "fp32"), ("zero 3, parameters", "bf16")]


@pytest.mark.parametrize("layout,precision", slow_but(FAST, [(layout, precision) for layout in LAYOUTS for precision in ("fp32", "bf16")]))
def test_changes_nothing(layout, precision, tmp_path):
    ranks, parallel, offload = LAYOUTS[layout]
    found = {}
    for choice in ("none", offload):
        recipe = runs.recipe(tmp_path / choice, "gpt", parallel={**parallel, "offload": choice}, evaluate={"every": 7},
                             train={"precision": precision, "ema": 0.9, "micro_batch": 4})
        done = runs.must(runs.tessera("train", recipe, ranks=ranks))
        assert ("parallel.offload spares no memory" in done.stdout + done.stderr) == (choice != "none" and not ON_GPU)
        found[choice] = runs.metrics(tmp_path / choice / "run"), runs.tensors(tmp_path / choice / "run")
    (losses, tensors), (other_losses, other_tensors) = found.values()
    assert tensors.keys() == other_tensors.keys() and losses[20] < losses[1]
    if ON_GPU:
        assert losses == pytest.approx(other_losses, rel=1e-5 if precision == "fp32" else 1e-3)
        return
    assert losses == other_losses
    for name, value in tensors.items():
        assert numpy.array_equal(value, other_tensors[name]), name


@pytest.mark.parametrize("parallel", [{}, {"shard": 2, "zero": 2}])
def test_whole_parameters_cannot_leave(parallel, tmp_path):
    done = runs.tessera("validate", runs.recipe(tmp_path, "gpt", parallel={**parallel, "offload": "parameters"}))
    assert done.returncode == 2
    assert "parallel.offload: parameters, but with shard" in done.stderr and "valid: optimizer, or zero 3" in done.stderr
