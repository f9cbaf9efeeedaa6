"""Models from and to transformers: byte-equal round trips, old key styles, files in pieces, pipelines on what we export, refusals."""
import json
import shutil

import pytest
import runs
import safetensors.torch
import torch
import transformers
from tiers import slow_but

BERT = {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 50, "max_position_embeddings": 40,
        "type_vocab_size": 3, "vocab_size": 611}
GPT2 = {"n_embd": 36, "n_layer": 3, "n_head": 3, "n_inner": 50, "n_positions": 40, "vocab_size": 611}
GPT1 = {**GPT2, "afn": "gelu"}
del GPT1["n_inner"]


def bert(name):
    return getattr(transformers, name)(transformers.BertConfig(**BERT))


MODELS = {
    "BertForPreTraining": (lambda: bert("BertForPreTraining"), "wordpiece"),
    "BertForMaskedLM": (lambda: bert("BertForMaskedLM"), "wordpiece"),
    "GPT2LMHeadModel": (lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)), "byte_level_bpe"),
    "OpenAIGPTLMHeadModel": (lambda: transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**GPT1)), "byte_level_bpe"),
}
FAST = ["BertForPreTraining", "GPT2LMHeadModel"]


def saved(folder, name, **options):
    """A random model as save_pretrained leaves it, with a tokenizer that it fits."""
    torch.manual_seed(5)
    make, kind = MODELS[name]
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, **options)
    shutil.copy(runs.data(kind) / "tokenizer.json", folder)
    return model


def there_and_back(folder, out):
    runs.must(runs.tessera("import", folder, out / "run"))
    runs.must(runs.tessera("export", out / "run", out / "model"))
    return out / "model"


def logits(model):
    with torch.no_grad():
        out = model(input_ids=torch.arange(5, 29).view(2, 12) * 7 % 600)
    return [value for key, value in out.items() if "logits" in key]


@pytest.mark.parametrize("name", MODELS)
def test_round_trip_is_byte_equal(name, tmp_path):
    model = saved(tmp_path / "theirs", name)
    folder = there_and_back(tmp_path / "theirs", tmp_path)
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "theirs/model.safetensors").read_bytes()
    again = getattr(transformers, name).from_pretrained(folder).eval()
    assert type(transformers.AutoModel.from_pretrained(folder)).__name__ in ("BertModel", "GPT2Model", "OpenAIGPTModel")
    for ours, theirs in zip(logits(again), logits(model), strict=True):
        assert torch.equal(ours, theirs)
    theirs, ours = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "theirs", folder))
    for key, value in ours.items():
        if not key.endswith("token_id"):  # the tokenizer's
            assert value == (theirs[key] if key in theirs else getattr(model.config, key)), key


@pytest.mark.parametrize("name", slow_but(FAST, MODELS))
def test_files_in_pieces(name, tmp_path):
    model = saved(tmp_path / "theirs", name, max_shard_size="30KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    folder = there_and_back(tmp_path / "theirs", tmp_path)
    for ours, theirs in zip(logits(getattr(transformers, name).from_pretrained(folder).eval()), logits(model), strict=True):
        assert torch.equal(ours, theirs)


def old_style(name, key):
    key = key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return key.removeprefix("transformer.") if name.startswith("GPT2") or name.startswith("OpenAI") else key


@pytest.mark.parametrize("name", slow_but(FAST, MODELS))
def test_old_key_styles(name, tmp_path):
    saved(tmp_path / "theirs", name)
    path = tmp_path / "theirs/model.safetensors"
    good = path.read_bytes()
    tensors = safetensors.torch.load_file(path)
    old = {old_style(name, key): value for key, value in tensors.items()}
    assert old.keys() != tensors.keys()
    if name.startswith("Bert"):
        old["bert.embeddings.position_ids"] = torch.arange(40).view(1, 40)
        old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    else:
        old["h.0.attn.bias"] = torch.ones(1, 1, 40, 40)
        old["lm_head.weight"] = next(iter(tensors.values())).clone()
    safetensors.torch.save_file(old, path)
    folder = there_and_back(tmp_path / "theirs", tmp_path)
    assert (folder / "model.safetensors").read_bytes() == good


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_bare_encoder_gets_new_heads(prefix, tmp_path):
    saved(tmp_path / "theirs", "BertForPreTraining")
    path = tmp_path / "theirs/model.safetensors"
    tensors = {key.removeprefix("bert."): value for key, value in safetensors.torch.load_file(path).items() if key.startswith("bert.")}
    safetensors.torch.save_file({prefix + key: value for key, value in tensors.items()}, path)
    done = runs.must(runs.tessera("import", tmp_path / "theirs", tmp_path / "run"))
    for word in ("drawn anew", "prediction.dense.weight", "next_sentence.bias"):
        assert word in done.stdout, done.stdout
    assert "layers" not in done.stdout
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "model"))
    ours = safetensors.torch.load_file(tmp_path / "model/model.safetensors")
    for key, value in tensors.items():
        assert torch.equal(ours["bert." + key], value), key


@pytest.fixture(scope="module", params=list(runs.FAMILIES))
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    runs.must(runs.tessera("train", runs.recipe(folder, request.param, optimizer={"learning_rate": 5e-3})))
    runs.must(runs.tessera("export", folder / "run", folder / "model"))
    return request.param, folder


def test_pipelines_work_on_what_we_trained(trained):
    family, folder = trained
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    if family == "gpt":
        model = transformers.pipeline("text-generation", model=str(folder / "model"), tokenizer=tokenizer)
        theirs = model("The license", max_new_tokens=12, do_sample=False, return_full_text=False)[0]["generated_text"]
        done = runs.must(runs.tessera("generate", folder / "run", "--prompt", "The license", "--greedy", "--max-tokens", 12, "--json"))
        assert json.loads(done.stdout)["text"] == theirs != ""
        on_cpu = runs.must(runs.tessera("generate", folder / "run", "--prompt", "The license", "--greedy", "--max-tokens", 12, "--json",
                                        "--device", "cpu"))
        assert on_cpu.stdout == done.stdout
    else:
        model = transformers.pipeline("fill-mask", model=str(folder / "model"), tokenizer=tokenizer, top_k=5)
        theirs = model("the terms of the [MASK] license")
        done = runs.must(runs.tessera("generate", folder / "run", "--prompt", "the terms of the [MASK] license", "--json"))
        ours = json.loads(done.stdout)["guesses"]
        assert [guess["id"] for guess in ours] == [guess["token"] for guess in theirs]
        assert [guess["probability"] for guess in ours] == pytest.approx([guess["score"] for guess in theirs], rel=1e-4)


@pytest.mark.parametrize("dtype,torch_type", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_other_types_and_pieces_of_ours(dtype, torch_type, trained, tmp_path):
    _, folder = trained
    runs.must(runs.tessera("export", folder / "run", tmp_path / "model", "--dtype", dtype, "--shard-size", 0.02))
    index = json.loads((tmp_path / "model/model.safetensors.index.json").read_text())
    pieces = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert len(pieces) > 2 and set(index["weight_map"].values()) == set(pieces)
    expected = safetensors.torch.load_file(folder / "model/model.safetensors")
    for key, value in expected.items():
        found = safetensors.torch.load_file(tmp_path / "model" / index["weight_map"][key])[key]
        assert torch.equal(found, value.to(torch_type)), key
    auto = transformers.AutoModel.from_pretrained(tmp_path / "model")
    assert sum(parameter.numel() for parameter in auto.parameters()) > 0


def change_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    config.update(values)
    (folder / "config.json").write_text(json.dumps(config))


def only_bin(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def change_tensors(change):
    def apply(folder):
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        change(tensors)
        safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return apply


WORD = "bert.embeddings.word_embeddings.weight"
MISTAKES = {
    "no folder": (shutil.rmtree, ["no folder", "config.json"]),
    "no config": (lambda folder: (folder / "config.json").unlink(), ["has no config.json"]),
    "config is no JSON": (lambda folder: (folder / "config.json").write_text("{"), ["config.json: not JSON"]),
    "another model": (lambda folder: change_config(folder, model_type="gpt3"), ["model_type", "'gpt3' is not implemented", "gpt2"]),
    "no type": (lambda folder: change_config(folder, model_type=None), ["model_type: missing"]),
    "activation": (lambda folder: change_config(folder, hidden_act="gelu_neww"), ["hidden_act", "did you mean 'gelu_new'"]),
    "negative": (lambda folder: change_config(folder, hidden_size=-1), ["hidden_size: -1 is no whole number"]),
    "text": (lambda folder: change_config(folder, num_hidden_layers="3"), ["num_hidden_layers: \"3\" is no whole number"]),
    "heads": (lambda folder: change_config(folder, num_attention_heads=5), ["num_attention_heads: 5 does not divide"]),
    "positions": (lambda folder: change_config(folder, position_embedding_type="relative_key"), ["position_embedding_type", "absolute"]),
    "only PyTorch's": (only_bin, ["pytorch_model.bin", "may run any program", "save_pretrained"]),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), ["holds no weights"]),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), ["has no tokenizer.json"]),
    "shape": (change_tensors(lambda tensors: tensors.update({WORD: tensors[WORD][:-1].clone()})),
              ["model.safetensors", WORD, "610", "611"]),
    "unknown tensor": (change_tensors(lambda tensors: tensors.update({"bert.adapter.weight": torch.ones(2)})),
                       ["no place for 1 of its tensors: bert.adapter.weight"]),
    "cut": (lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4]),
            ["model.safetensors", "not in the buffer"]),
    "index without file": (lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}'),
                           ["b.safetensors", "No such file"]),
    "index elsewhere": (lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}'),
                        ["index.json", "no file's name"]),
    "index of another": (lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors"}}'),
                         ["index.json", "'a' is not in model.safetensors"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name, tmp_path):
    change, words = MISTAKES[name]
    saved(tmp_path / "theirs", "BertForPreTraining")
    change(tmp_path / "theirs")
    done = runs.tessera("import", tmp_path / "theirs", tmp_path / "run")
    assert done.returncode == 2 and not (tmp_path / "run/checkpoints").exists(), done.stdout + done.stderr
    for word in [*words, str(tmp_path / "theirs")]:
        assert word in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


def test_does_not_write_over_a_run(trained, tmp_path):
    _, folder = trained
    done = runs.tessera("import", folder / "model", folder / "run")
    assert done.returncode == 2 and "holds checkpoints already" in done.stderr
