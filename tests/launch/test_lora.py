"""LoRA: the same curve on every mesh, the base untouched and not saved, resuming, factors of the learning rate, refusals."""
import json
import shutil

import numpy
import pytest
import runs
from test_meshes import GLOBAL_BATCH, MESHES, all_at_once, global_batch
from test_start import curves, recipe, starts  # noqa: F401 (a fixture)
from tiers import slow_but

NAMES = ["zero 1, 3 ranks, accumulated", "zero 2, 4 ranks, accumulated", "zero 3, 4 ranks, accumulated, recomputed", "replicate 2 x zero 3",
         "tensor 2, accumulated, recomputed", "zero 3 x tensor 2", "zero 3 x ring 2", "pipeline 3, own split",
         "pipeline 2 x 2 chunks, interleaved", "zero 3 x pipeline 2 x 2 chunks", "tensor 2 x pipeline 2"]
ALL = ["query", "key", "value", "output", "expand", "contract"]
CHOICES = {
    "default": {"dropout": 0.1},
    "everything": {"targets": [*ALL, "embeddings.word"], "rank": 3, "alpha": 5, "dropout": 0.2, "bias": "lora_only", "rank_stabilized": True,
                   "patterns": [{"pattern": "layers.1", "rank": 5, "alpha": 7}, {"pattern": "expand", "alpha": 2}],
                   "modules_to_save": ["layers.2.attention_norm"], "rate_ratio": 4.0},
    "dora": {"targets": ALL, "dora": True, "dropout": 0.1, "bias": "all"},
}
CASES = [(family, choice, name) for family in runs.FAMILIES for choice in CHOICES for name in NAMES]
FAST = [("gpt", "default", "zero 3 x ring 2"), ("gpt", "everything", "zero 3 x tensor 2"), ("bert", "dora", "pipeline 3, own split")]


def settings(choice, **train):
    # With AdamW's usual 1e-8, weights whose gradient is nothing but rounding are moved by the whole rate: micro-batches of
    # another size alone then change a gradient norm by 2e-4 in step 16.
    return {"train": train, "adapt": {"method": "lora", **CHOICES[choice]}, "optimizer": {"learning_rate": 1e-2, "epsilon": 1e-5},
            "checkpoint": {"every": 10, "keep": 9}}


@pytest.fixture(scope="module")
def reference(tmp_path_factory, starts):
    made = {}

    def run(family, choice, batch):
        if (family, choice, batch) not in made:
            folder = tmp_path_factory.mktemp(family)
            path = recipe(folder, family, starts(family) / "theirs", **settings(choice, global_batch=batch, micro_batch=batch))
            made[family, choice, batch] = folder / "run", curves(folder, path)
        return made[family, choice, batch]

    return run


@pytest.mark.parametrize("family,choice,name", slow_but(FAST, CASES))
def test_curve(family, choice, name, reference, starts, tmp_path):
    ranks, parallel, changes = MESHES[name]
    batch = global_batch(ranks)
    train = {"global_batch": batch, "micro_batch": all_at_once(ranks, parallel, batch), **changes}
    ours = curves(tmp_path, recipe(tmp_path, family, starts(family) / "ours", parallel=parallel, **settings(choice, **train)), ranks=ranks)
    for key, values in reference(family, choice, batch)[1].items():
        assert ours[key] == pytest.approx(values, rel=1e-4 if key == "grad_norm" else 1e-5), key


@pytest.mark.parametrize("family", runs.FAMILIES)
@pytest.mark.parametrize("choice", CHOICES)
def test_only_what_is_trained_is_saved(family, choice, reference, starts):
    run, curve = reference(family, choice, GLOBAL_BATCH)
    before, after = runs.tensors(run, 10), runs.tensors(run, 20)
    names = {name.removeprefix("model/") for name in after if name.startswith("model/")}
    assert names == {name.split("/", 2)[2] for name in after if name.startswith("optimizer/")}
    for name in names:
        assert not numpy.array_equal(before["model/" + name], after["model/" + name]), name
    layers = {"default": 4 * 4, "everything": 4 * 12 + 2, "dora": 4 * 18}[choice]
    low_rank = [name for name in names if ".lora." in name]
    assert len(low_rank) == layers, sorted(low_rank)
    others = {"default": 0, "everything": 4 * 6 + 2, "dora": sum(name.endswith("bias") for name in base(starts(family)))}[choice]
    assert len(names) - len(low_rank) == others, sorted(names - set(low_rank))
    assert curve["loss"][20] < curve["loss"][1]
    size = sum(path.stat().st_size for path in (run / "checkpoints/step-00000020").iterdir())
    whole = sum(path.stat().st_size for path in (starts(family) / "ours/checkpoints/step-00000000").iterdir())
    assert size < whole or choice != "default"  # the others train much of so small a model


def base(start):
    return [name.removeprefix("model/") for name in runs.tensors(start / "ours", 0, optimizer=False)]


def test_resumes_bit_by_bit_and_on_another_mesh(reference, starts, tmp_path):
    expected = reference("gpt", "everything", GLOBAL_BATCH)[1]
    path = recipe(tmp_path, "gpt", starts("gpt") / "theirs", **settings("everything", global_batch=GLOBAL_BATCH, micro_batch=GLOBAL_BATCH))
    runs.must(runs.tessera("train", path, "train.stop_after=10"))
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    assert curves(tmp_path, path) == expected
    runs.must(runs.tessera("train", path, f"run.folder={tmp_path}/other", "train.micro_batch=4", "parallel.tensor=2", ranks=4))
    assert runs.metrics(tmp_path / "other") == pytest.approx(expected["loss"], rel=1e-5)


def test_evaluates_beside_its_base(reference, starts, tmp_path):
    run, curve = reference("gpt", "dora", GLOBAL_BATCH)
    done = runs.must(runs.tessera("evaluate", run))
    assert f"{curve['validation_loss'][20]:.4f}" in done.stdout, done.stdout
    runs.must(runs.tessera("generate", run, "--prompt", "The", "--max-tokens", 4))


def test_another_base_is_refused(starts, tmp_path):
    shutil.copytree(starts("gpt") / "theirs", tmp_path / "base")
    path = recipe(tmp_path, "gpt", tmp_path / "base", **settings("default", steps=4, global_batch=8, micro_batch=8))
    runs.must(runs.tessera("train", path, "train.stop_after=2"))
    file = tmp_path / "base/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    for verb in (["train", path], ["evaluate", tmp_path / "run"]):
        done = runs.tessera(*verb)
        assert done.returncode == 2 and "base" in done.stderr, done.stderr
    runs.must(runs.tessera("evaluate", tmp_path / "run", "--base", starts("gpt") / "theirs"))


@pytest.mark.parametrize("adapt,words", [
    ({"targets": ["qery"]}, ["adapt.targets", "'qery' matches none of the", "layers.*.attention.query"]),
    ({"targets": ["query", "query_key_value"]}, ["adapt.targets", "layers.0.attention.query twice"]),
    ({"patterns": [{"pattern": "layers.9", "rank": 2}]}, ["adapt.patterns", "'layers.9' matches none", "query_key_value"]),
    ({"modules_to_save": ["classifier"]}, ["adapt.modules_to_save", "'classifier' matches none of the"]),
    ({"rank": 0}, ["adapt.rank", "at least 1"]),
])
def test_mistakes(adapt, words, starts, tmp_path):
    done = runs.tessera("train", recipe(tmp_path, "gpt", starts("gpt") / "ours", adapt={"method": "lora", **adapt}))
    assert done.returncode == 2, done.stdout + done.stderr
    for word in [*words, "recipe.yaml:"]:
        assert word in done.stderr, done.stderr


def test_needs_a_model(tmp_path):
    done = runs.tessera("train", runs.recipe(tmp_path, "gpt", adapt={"method": "lora"}))
    assert done.returncode == 2 and "adapt.method" in done.stderr and "model.from" in done.stderr


def test_head(starts, tmp_path):
    path = recipe(tmp_path, "bert", starts("bert") / "ours", adapt={"method": "head"}, train={"steps": 4})
    runs.must(runs.tessera("train", path))
    moved = {name.split("/")[2] for name in runs.tensors(tmp_path / "run", 4) if name.startswith("optimizer/")}
    assert {name.split(".")[0] for name in moved} == {"prediction", "pooler", "next_sentence"}
    done = runs.tessera("train", recipe(tmp_path / "gpt", "gpt", starts("gpt") / "ours", adapt={"method": "head"}))
    assert done.returncode == 2 and "table of words" in done.stderr
