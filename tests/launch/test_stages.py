"""Staged unfreezing and learning rates by depth: as PyTorch does it, on any mesh, interrupted anywhere."""
import shutil

import numpy
import pytest
import runs
import torch
import transformers
from test_meshes import GLOBAL_BATCH, MESHES, all_at_once, global_batch
from test_peft import first_windows
from test_start import curves, recipe, starts  # noqa: F401 (a fixture)
from tiers import slow_but

# First the last block, then half of the model, then all but the table of tokens.
ADAPT = {"method": "freeze", "last_blocks": 1, "layer_decay": 0.7,
         "stages": [{"step": 5, "last_blocks": 2, "freeze": ["layers.3.attention.query"]}, {"step": 12, "freeze": ["embeddings.word"]}]}
NAMES = ["zero 1, 3 ranks, accumulated", "zero 3, 4 ranks, accumulated, recomputed", "replicate 2 x zero 3", "tensor 2, accumulated, recomputed",
         "zero 3 x ring 2", "pipeline 3, own split", "zero 3 x pipeline 2 x 2 chunks", "tensor 2 x pipeline 2"]
CASES = [(family, name) for family in runs.FAMILIES for name in NAMES]
FAST = [("bert", "zero 3, 4 ranks, accumulated, recomputed"), ("gpt", "tensor 2 x pipeline 2")]


def settings(**train):
    return {"adapt": ADAPT, "train": train, "optimizer": {"learning_rate": 3e-3}}


@pytest.fixture(scope="module")
def reference(tmp_path_factory, starts):
    made = {}

    def run(family, batch):
        if (family, batch) not in made:
            folder = tmp_path_factory.mktemp(family)
            path = recipe(folder, family, starts(family) / "theirs", **settings(global_batch=batch, micro_batch=batch))
            made[family, batch] = folder / "run", curves(folder, path)
        return made[family, batch]

    return run


@pytest.mark.parametrize("family,name", slow_but(FAST, CASES))
def test_curve(family, name, reference, starts, tmp_path):
    ranks, parallel, changes = MESHES[name]
    batch = global_batch(ranks)
    train = {"global_batch": batch, "micro_batch": all_at_once(ranks, parallel, batch), **changes}
    ours = curves(tmp_path, recipe(tmp_path, family, starts(family) / "ours", parallel=parallel, **settings(**train)), ranks=ranks)
    for key, values in reference(family, batch)[1].items():
        assert ours[key] == pytest.approx(values, rel=1e-4 if key == "grad_norm" else 1e-5), key


@pytest.mark.parametrize("stop", slow_but([9], [3, 5, 9, 12, 15]))
def test_interrupted_anywhere_it_goes_on_bit_by_bit(stop, reference, starts, tmp_path):
    whole, expected = reference("gpt", GLOBAL_BATCH)
    path = recipe(tmp_path, "gpt", starts("gpt") / "theirs", **settings(global_batch=GLOBAL_BATCH, micro_batch=GLOBAL_BATCH))
    runs.must(runs.tessera("train", path, f"train.stop_after={stop}"))
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    assert curves(tmp_path, path) == expected
    ours, theirs = runs.tensors(tmp_path / "run"), runs.tensors(whole)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert numpy.array_equal(value, ours[name]), name
    if stop in (9, 12):
        runs.must(runs.tessera("train", path, f"run.folder={tmp_path}/other", "train.micro_batch=8", "parallel.pipeline=2", ranks=2))
        assert runs.metrics(tmp_path / "other") == pytest.approx(expected["loss"], rel=1e-5)


def trained(stage, name):
    """What the recipe above says, for the names of GPT-2 in transformers; query is a third of c_attn."""
    if stage == 2:
        return "wte" not in name
    block = int(name.split(".")[2]) if ".h." in name else None
    return "ln_f" in name if block is None else block >= 4 - (1 if stage == 0 else 2)


def test_every_step_is_that_of_pytorch(starts, tmp_path):
    """Bias correction counts from the step where a parameter joins, or joins again."""
    steps, rate = 20, 3e-3
    base = starts("gpt") / "theirs"
    path = recipe(tmp_path, "gpt", base, {"dropout": 0.0}, data={"shuffle": False}, **settings(global_batch=8, micro_batch=8, clip=0.0))
    runs.must(runs.tessera("train", path))
    windows = first_windows(8 * steps, 32)
    model = transformers.GPT2LMHeadModel.from_pretrained(base)
    depth = {name: 4 - int(name.split(".")[2]) if ".h." in name else 0 if "ln_f" in name else 5 for name, _ in model.named_parameters()}
    optimizers, losses = {}, []
    stage_before = {}
    for step in range(steps):
        stage = (step >= 5) + (step >= 12)
        factor = step / 2 if step < 2 else (steps - step) / (steps - 2)
        scores = model(input_ids=windows[8 * step:8 * step + 8, :-1]).logits
        loss = torch.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), windows[8 * step:8 * step + 8, 1:].reshape(-1))
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            # c_attn in three, since the query of block 3 stands still in the stage between.
            thirds = 3 if "c_attn" in name else 1
            for third in range(thirds):
                part = parameter.data.chunk(thirds, -1)[third]
                still = stage == 1 and ".h.3.attn.c_attn" in name and third == 0
                if still or not trained(stage, name):
                    optimizers.pop((name, third), None)
                    continue
                if (name, third) not in optimizers:
                    copy = torch.nn.Parameter(part.clone())
                    optimizers[name, third] = copy, torch.optim.AdamW([copy], lr=1, weight_decay=0.01 if parameter.dim() > 1 else 0)
                copy, optimizer = optimizers[name, third]
                copy.grad = parameter.grad.chunk(thirds, -1)[third].clone()
                optimizer.param_groups[0]["lr"] = rate * factor * 0.7 ** depth[name]
                optimizer.step()
                part.copy_(copy.data)
    ours = runs.metrics(tmp_path / "run")
    assert [ours[step + 1] for step in range(steps)] == pytest.approx(losses, rel=2e-5)
    assert abs(losses[-1] - losses[0]) > 0.01


@pytest.mark.parametrize("adapt,words", [
    ({"stages": [{"step": 9, "last_blocks": 2}, {"step": 9, "last_blocks": 3}]}, ["adapt.stages", "begin after steps 9 and 9", "rising"]),
    ({"stages": [{"step": 0, "last_blocks": 2}]}, ["adapt.stages[0].step", "at least 1"]),
    ({"stages": [{"step": 3}]}, ["adapt.stages[0]", "neither what to train nor what to freeze"]),
    ({"stages": [{"step": 3, "train": ["layers.7"]}]}, ["adapt.stages[0].train", "'layers.7' matches none"]),
    ({"stages": [{"step": 3, "last_blocks": 7}]}, ["adapt.stages[0].last_blocks", "7 of the model's 4 blocks"]),
    ({"layer_decay": 0}, ["adapt.layer_decay", "above 0"]),
])
def test_mistakes(adapt, words, starts, tmp_path):
    done = runs.tessera("train", recipe(tmp_path, "gpt", starts("gpt") / "ours", adapt={"method": "freeze", "last_blocks": 1, **adapt}))
    assert done.returncode == 2, done.stdout + done.stderr
    for word in [*words, "recipe.yaml:"]:
        assert word in done.stderr, done.stderr
