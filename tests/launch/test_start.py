"""model.from: training starts from a run, a checkpoint or a Hugging Face folder, on any mesh; refusals."""
import json
import shutil

import h5py
import numpy
import pytest
import runs
import safetensors.torch
import torch
import transformers
from tiers import slow_but

SIZES = {"bert": {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 32,
                  "vocab_size": 600},
         "gpt": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 64, "n_positions": 32, "vocab_size": 600}}
THEIRS = {"bert": "BertForPreTraining", "gpt": "GPT2LMHeadModel"}
MESHES = [(2, {"shard": 2}), (2, {"tensor": 2}), (2, {"pipeline": 2}), (3, {"shard": 3, "zero": 1}), (4, {"tensor": 2, "shard": 2})]


def save_random(family, folder, name=None):
    """A random model of transformers with our tokenizer; every parameter differs from its initial value."""
    torch.manual_seed(5)
    config = (transformers.BertConfig if family == "bert" else transformers.GPT2Config)(**SIZES[family])
    model = getattr(transformers, name or THEIRS[family])(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    shutil.copy(runs.data(runs.FAMILIES[family]["kind"]) / "tokenizer.json", folder)
    return model


@pytest.fixture(scope="session")
def starts(tmp_path_factory):
    """The same model as a Hugging Face folder ("theirs") and as a run of ours ("ours")."""
    made = {}

    def of(family):
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            save_random(family, made[family] / "theirs")
            runs.must(runs.tessera("import", made[family] / "theirs", made[family] / "ours"))
        return made[family]

    return of


def recipe(folder, family, start, model=(), **changes):
    """Says nothing of the model but where it comes from, and its dropout."""
    return runs.recipe(folder, family, whole_model={"from": str(start), "dropout": 0.1, "attention_dropout": 0.0, **dict(model)}, **changes)


def curves(folder, path, *more, ranks=1):
    runs.must(runs.tessera("train", path, *more, ranks=ranks))
    return {key: runs.metrics(folder / "run", key) for key in ("loss", "grad_norm", "validation_loss")}


@pytest.mark.parametrize("family", SIZES)
def test_begins_with_their_weights(family, starts, tmp_path):
    """A step so small that it changes nothing: what is saved is what transformers saved."""
    path = recipe(tmp_path, family, starts(family) / "theirs", optimizer={"learning_rate": 1e-30, "weight_decay": 0.0}, train={"steps": 1})
    done = runs.must(runs.tessera("train", path))
    assert str(starts(family) / "theirs") in done.stdout
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "back"))
    theirs, ours = (safetensors.torch.load_file(folder / "model.safetensors") for folder in (starts(family) / "theirs", tmp_path / "back"))
    assert theirs.keys() == ours.keys()
    for key, value in theirs.items():
        assert torch.equal(value, ours[key]), key


def test_validate_looks_there_too(starts, tmp_path):
    """The tokenizer comes with the model; what LoRA trains is counted, and its mistakes are found."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one thing", "label": "a"}\n{"text": "another", "label": "b"}\n{"text": "a third", "label": "c"}\n' * 16)
    path = recipe(tmp_path, "bert", starts("bert") / "theirs", whole_objective={"name": "sequence_classification"},
                  data={"train": str(rows), "validation": None}, adapt={"method": "lora", "rank": 4})
    plan = json.loads(runs.must(runs.tessera("validate", path, "--json")).stdout)
    classifier = 3 * 32 + 3
    assert plan["memory"]["optimizer"] == 8 * (4 * 2 * 2 * 4 * 32 + classifier), plan["memory"]
    done = runs.tessera("validate", path, "adapt.targets=[qury]")
    assert done.returncode == 2 and "'qury' matches none" in done.stderr, done.stderr


@pytest.mark.parametrize("family", slow_but(["gpt"], SIZES))
def test_any_mesh_and_either_kind_of_folder(family, starts, tmp_path):
    sizes = {"global_batch": 12, "micro_batch": 12}
    expected = curves(tmp_path / "one", recipe(tmp_path / "one", family, starts(family) / "ours", train=sizes))
    assert expected["loss"][20] < expected["loss"][1]
    for number, (ranks, parallel) in enumerate(MESHES):
        folder = tmp_path / str(number)
        sizes["micro_batch"] = 12 // parallel.get("shard", 1)
        ours = curves(folder, recipe(folder, family, starts(family) / "theirs", train=sizes, parallel=parallel), ranks=ranks)
        for key, values in expected.items():
            assert ours[key] == pytest.approx(values, rel=1e-5), (parallel, key)


def test_a_run_goes_on_by_itself(starts, tmp_path):
    """Once it has checkpoints, a run reads its own, though the recipe still names where it began."""
    whole = curves(tmp_path / "whole", recipe(tmp_path / "whole", "bert", starts("bert") / "ours"))
    path = recipe(tmp_path, "bert", starts("bert") / "ours")
    runs.must(runs.tessera("train", path, "train.stop_after=7"))
    assert curves(tmp_path, path) == whole


def test_heads_that_it_lacks_are_drawn_and_others_not_used(starts, tmp_path):
    save_random("bert", tmp_path / "encoder", "BertModel")
    done = runs.must(runs.tessera("train", recipe(tmp_path, "bert", tmp_path / "encoder", train={"steps": 1})))
    assert "drawn anew: prediction.bias, prediction.dense.weight" in done.stderr and "next_sentence.bias" in done.stderr
    done = runs.must(runs.tessera("train", recipe(tmp_path / "mlm", "bert", starts("bert") / "ours", objective={"name": "mlm"}, train={"steps": 1})))
    assert "not used: " in done.stderr and "next_sentence.weight" in done.stderr and "drawn anew" not in done.stderr


def test_the_average_begins_there_too(starts, tmp_path):
    still = {"learning_rate": 1e-30, "weight_decay": 0.0}
    runs.must(runs.tessera("train", recipe(tmp_path, "gpt", starts("gpt") / "ours", optimizer=still, train={"steps": 2, "ema": 0.5})))
    tensors = runs.tensors(tmp_path / "run", 2)
    assert sum(name.startswith("ema/") for name in tensors) > 10
    for name, value in tensors.items():
        if name.startswith("ema/"):
            numpy.testing.assert_allclose(value, tensors[name.replace("ema/", "model/")], rtol=1e-6)


def test_a_checkpoint_needs_its_start_no_more(starts, tmp_path):
    shutil.copytree(starts("gpt") / "theirs", tmp_path / "start")
    runs.must(runs.tessera("train", recipe(tmp_path, "gpt", tmp_path / "start", train={"steps": 2})))
    shutil.rmtree(tmp_path / "start")
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "out"))
    runs.must(runs.tessera("inspect", tmp_path / "run"))


def break_nothing(folder):
    pass


def remove_a_block(folder):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file({key: value for key, value in tensors.items() if "layer.2.output" not in key}, folder / "model.safetensors",
                                {"format": "pt"})


def no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("model,prepare,words", [
    ({"from": "/nowhere/model"}, break_nothing, ["model.from", "'/nowhere/model' does not exist", "config.json"]),
    ({"family": "gpt"}, break_nothing, ["model.family", "holds a model of the family bert"]),
    ({"num_layers": 5}, break_nothing, ["model.from", "holds no whole model", "layers.*.attention.query.weight"]),
    ({"hidden_size": 64}, break_nothing, ["model.from", "has shape [600, 32], but the model needs [600, 64]"]),
    ({"max_position": 16}, break_nothing, ["model.max_position", "did you mean 'max_positions'"]),
    ({}, remove_a_block, ["model.from", "holds no whole model", "feed_forward.contract.weight"]),
])
@pytest.mark.parametrize("verb,ranks", slow_but([("train", 1)], [("train", 1), ("train", 2), ("validate", 1)]))
def test_mistakes(model, prepare, words, verb, ranks, starts, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(starts("bert") / "theirs", start)
    prepare(start)
    path = recipe(tmp_path, "bert", start, model)
    done = runs.tessera(verb, path, ranks=ranks)
    assert done.returncode == 2, done.stdout + done.stderr
    for word in [*words, "recipe.yaml:"]:
        assert word in done.stderr, done.stderr
    assert done.stderr.count("tessera: ") == 1, "one message, from one rank"


def test_data_of_another_tokenizer(starts, tmp_path):
    other = runs.data("byte_level_bpe")
    done = runs.tessera("train", recipe(tmp_path, "bert", starts("bert") / "theirs", objective={"name": "mlm"},
                                        data={"train": str(other / "train.h5")}))
    assert done.returncode == 2 and "data.train" in done.stderr and "another tokenizer" in done.stderr
