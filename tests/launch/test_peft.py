"""Adapters from and to PEFT: the same logits, the same training step, merged ones equal to those beside their base; refusals."""
import json
import shutil

import h5py
import peft
import pytest
import runs
import safetensors.torch
import torch
import transformers
from test_start import THEIRS, recipe, save_random, starts  # noqa: F401 (a fixture)
from tiers import slow_but

TARGETS = {"bert": ["query", "key", "attention.output.dense", "output.dense"], "gpt": ["c_attn", "c_proj"]}
WORDS = {"bert": "word_embeddings", "gpt": "wte"}
VARIANTS = {
    "default": {},
    "wide": {"r": 5, "lora_alpha": 3, "use_rslora": True, "everything": True},
    "patterns": {"everything": True, "rank": True},
    "dora": {"use_dora": True, "everything": True},
    "bias": {"bias": "lora_only", "everything": True},
    "all biases": {"bias": "all"},
    "embeddings": {"words": True},
    "norms": {"saved": True},
}


ALL = [(family, variant) for family in THEIRS for variant in VARIANTS]
FAST = [("bert", "default"), ("bert", "bias"), ("gpt", "patterns"), ("gpt", "dora")]


def read(folder):
    """The tensors of an adapter but for a copy that transformers keeps of a tied one."""
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    return {key: value for key, value in tensors.items() if not key.endswith("predictions.decoder.bias")}


def adapter(family, base, folder, variant):
    """A random adapter of PEFT on `base`, saved in `folder`."""
    given = dict(VARIANTS[variant])
    options = {"lora_dropout": 0.0, "fan_in_fan_out": family == "gpt"}
    targets = TARGETS[family] if given.pop("everything", False) else ["query", "value"] if family == "bert" else ["c_attn"]
    if given.pop("words", False):
        targets = [*targets, WORDS[family]]
    if given.pop("rank", False):
        layer = "encoder.layer.1.attention.self.query" if family == "bert" else "h.1.attn.c_attn"
        options |= {"rank_pattern": {layer: 3}, "alpha_pattern": {layer: 10, "output.dense" if family == "bert" else "mlp.c_proj": 2}}
    if given.pop("saved", False):
        options["modules_to_save"] = ["encoder.layer.2.output.LayerNorm" if family == "bert" else "h.2.ln_2"]
    torch.manual_seed(3)
    model = peft.get_peft_model(getattr(transformers, THEIRS[family]).from_pretrained(base),
                                peft.LoraConfig(target_modules=targets, **options, **given)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def logits(model):
    ids = torch.arange(5, 29).view(2, 12) * 7 % 600
    with torch.no_grad():
        out = model(input_ids=ids)
    return [value for key, value in out.items() if "logits" in key]


def assert_same_logits(ours, theirs):
    for one, other in zip(logits(ours), logits(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("family,variant", slow_but(FAST, ALL))
def test_theirs_merged_by_us(family, variant, starts, tmp_path):
    base = starts(family) / "theirs"
    model = adapter(family, base, tmp_path / "adapter", variant)
    runs.must(runs.tessera("export", starts(family) / "ours", tmp_path / "merged", "--adapter", tmp_path / "adapter"))
    merged = getattr(transformers, THEIRS[family]).from_pretrained(tmp_path / "merged").eval()
    assert_same_logits(merged, model)
    changed = [not torch.allclose(*pair, atol=1e-3) for pair in zip(logits(merged), logits(getattr(transformers, THEIRS[family]).from_pretrained(base)))]
    assert changed[0], "the adapter does nothing"


@pytest.mark.parametrize("family,variant", slow_but(FAST, ALL))
def test_theirs_trained_on_by_us_and_back(family, variant, starts, tmp_path):
    """With a step that moves nothing, what comes out is what came in; after real ones PEFT computes what our merged model does."""
    base = starts(family) / "theirs"
    adapter(family, base, tmp_path / "adapter", variant)
    adapt = {"method": "lora", "from": str(tmp_path / "adapter")}
    if variant == "norms":
        adapt["modules_to_save"] = ["layers.2.feed_forward_norm"]
    still = {"learning_rate": 1e-30, "weight_decay": 0.0}
    runs.must(runs.tessera("train", recipe(tmp_path, family, base, adapt=adapt, optimizer=still, train={"steps": 1})))
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "back"))
    theirs, ours = (read(tmp_path / name) for name in ("adapter", "back"))
    assert theirs.keys() == ours.keys()
    for key, value in theirs.items():
        assert torch.equal(value, ours[key]), key

    moved = tmp_path / "moved"
    runs.must(runs.tessera("train", recipe(moved, family, base, adapt=adapt | {"dropout": 0.1}, optimizer={"learning_rate": 1e-2}, train={"steps": 4})))
    runs.must(runs.tessera("export", moved / "run", moved / "adapter"))
    runs.must(runs.tessera("export", moved / "run", moved / "merged", "--merge"))
    model = getattr(transformers, THEIRS[family]).from_pretrained(base)
    loaded = peft.PeftModel.from_pretrained(model, moved / "adapter").eval()
    assert_same_logits(getattr(transformers, THEIRS[family]).from_pretrained(moved / "merged").eval(), loaded)
    state = peft.get_peft_model_state_dict(loaded)
    twins = (".modules_to_save.", ".original_module.", "predictions.decoder.bias")
    assert {key for key in state if not any(twin in key for twin in twins)} == read(moved / "adapter").keys()


@pytest.mark.parametrize("targets", slow_but([["query", "value"]], [["query", "value"], ["query", "output"]]))
@pytest.mark.parametrize("more", [{}, {"dora": True}, {"rank_stabilized": True, "patterns": [{"pattern": "query", "rank": 2}]}])
def test_layers_that_are_one_in_theirs(targets, more, starts, tmp_path):
    """GPT-2's c_attn is three layers of ours, which may have low-rank parts of their own."""
    base = starts("gpt") / "theirs"
    runs.must(runs.tessera("train", recipe(tmp_path, "gpt", base, adapt={"method": "lora", "targets": targets, **more}, train={"steps": 4},
                                           optimizer={"learning_rate": 1e-2})))
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "adapter"))
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "merged", "--merge"))
    loaded = peft.PeftModel.from_pretrained(transformers.GPT2LMHeadModel.from_pretrained(base), tmp_path / "adapter").eval()
    assert_same_logits(transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval(), loaded)


def first_windows(count, length):
    """The first samples of the GPT data in the file's order: its documents, each with the end token, in a row."""
    with h5py.File(runs.data("byte_level_bpe") / "train.h5") as file:
        tokens, starts_ = file["tokens"][: 4 * count * length].astype(int), file["documents"][:]
    end = json.loads((runs.data("byte_level_bpe") / "tokenizer.json").read_text())["added_tokens"][0]["id"]
    stream = []
    for begin, stop in zip(starts_[:-1], starts_[1:]):
        if begin >= len(tokens):
            break
        stream += [*tokens[begin:stop], end]
    return torch.tensor([stream[i * length:(i + 1) * length + 1] for i in range(count)])


@pytest.mark.parametrize("variant", slow_but(["wide", "dora"], ["wide", "patterns", "dora", "bias", "embeddings", "norms"]))
def test_one_step_moves_it_as_theirs(variant, starts, tmp_path):
    """Plain descent from the same adapter on the same samples."""
    base = starts("gpt") / "theirs"
    model = adapter("gpt", base, tmp_path / "adapter", variant)
    adapt = {"method": "lora", "from": str(tmp_path / "adapter")}
    if variant == "norms":
        adapt["modules_to_save"] = ["layers.2.feed_forward_norm"]
    path = recipe(tmp_path, "gpt", base, {"dropout": 0.0}, adapt=adapt, data={"shuffle": False},
                  optimizer={"name": "sgd", "learning_rate": 0.5, "weight_decay": 0.0}, schedule={"name": "constant", "warm_up": 0},
                  train={"steps": 1, "clip": 0.0})
    runs.must(runs.tessera("train", path))
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "after"))

    windows = first_windows(16, 32)
    before = {key: value.clone() for key, value in peft.get_peft_model_state_dict(model).items()}
    scores = model(input_ids=windows[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), windows[:, 1:].reshape(-1))
    assert runs.metrics(tmp_path / "run")[1] == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter -= 0.5 * parameter.grad
    ours = safetensors.torch.load_file(tmp_path / "after/adapter_model.safetensors")
    for key, value in peft.get_peft_model_state_dict(model).items():
        if ".modules_to_save." in key or ".original_module." in key:
            continue
        moved = (value - before[key]).abs().max()
        assert moved > 0, key
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-5, msg=lambda text: f"{key}: {text}")
        torch.testing.assert_close(ours[key] - before[key], value - before[key], rtol=1e-3, atol=1e-3 * moved.item(), msg=lambda text: f"{key}: {text}")


@pytest.mark.parametrize("options", slow_but([{}], [{}, {"use_dora": True, "target_modules": ["query", "dense"]}, {"bias": "all", "r": 3}]))
def test_a_step_of_a_classifier_is_that_of_theirs(options, tmp_path):
    """SEQ_CLS: the head is trained beside the low-rank parts, and saved with them."""
    names, texts = ["library", "tool", "game"], ["a shared library", "the command line tool for files", "play with your friends", "libraries of C"] * 4
    labels = [0, 1, 2, 0] * 4
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": text, "label": names[label]}) + "\n" for text, label in zip(texts, labels)))
    save_random("bert", tmp_path / "base", "BertModel")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 3}
    torch.manual_seed(4)
    model = peft.get_peft_model(transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base", **still),
                                peft.LoraConfig(**{"task_type": "SEQ_CLS", "target_modules": ["query", "value"], **options}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "adapter")
    path = recipe(tmp_path, "bert", tmp_path / "base", {"dropout": 0.0}, adapt={"method": "lora", "from": str(tmp_path / "adapter")},
                  whole_objective={"name": "sequence_classification", "labels": names},
                  data={"train": str(tmp_path / "data.jsonl"), "validation": str(tmp_path / "data.jsonl"), "shuffle": False},
                  optimizer={"name": "sgd", "learning_rate": 0.5, "weight_decay": 0.0}, schedule={"name": "constant", "warm_up": 0},
                  train={"steps": 1, "clip": 0.0})
    runs.must(runs.tessera("train", path))
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "after"))
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "merged", "--merge"))

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "base/tokenizer.json"), pad_token="[PAD]")
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    before = {key: value.clone() for key, value in peft.get_peft_model_state_dict(model).items()}
    out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=torch.tensor(labels))
    assert runs.metrics(tmp_path / "run")[1] == pytest.approx(out.loss.item(), rel=1e-5)
    out.loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is not None:
                parameter -= 0.5 * parameter.grad
    ours = read(tmp_path / "after")
    assert any("classifier" in key for key in ours)
    for key, value in peft.get_peft_model_state_dict(model).items():
        if ".modules_to_save." in key or ".original_module." in key:
            continue
        moved = (value - before[key]).abs().max().item()
        torch.testing.assert_close(ours[key] - before[key], value - before[key], rtol=1e-3, atol=1e-3 * moved + 1e-7, msg=lambda text: f"{key}: {text}")
    merged = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert merged.config.id2label == dict(enumerate(names))
    with torch.no_grad():
        torch.testing.assert_close(merged(**batch).logits, model.eval()(**batch).logits, rtol=1e-4, atol=1e-4)


def edit(name, change):
    def damage(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
    return damage


def rename_keys(change):
    def damage(folder):
        tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
        safetensors.torch.save_file(dict(change(key, value) for key, value in tensors.items()), folder / "adapter_model.safetensors", {"format": "pt"})
    return damage


CONFIG = "adapter_config.json"


@pytest.mark.parametrize("damage,words", [
    (lambda folder: (folder / CONFIG).unlink(), ["holds no adapter_config.json"]),
    (lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"), ["adapter_model.bin is not read"]),
    (edit(CONFIG, lambda content: content.update(peft_type="IA3")), ["peft_type is 'IA3'; valid: LORA"]),
    (edit(CONFIG, lambda content: content.update(use_qalora=True)), ["use_qalora", "not supported"]),
    (edit(CONFIG, lambda content: content.update(r="8")), ["r: \"8\" is of the wrong type"]),
    (edit(CONFIG, lambda content: content.update(bias="some")), ["bias: 'some'", "lora_only"]),
    (rename_keys(lambda key, value: (key.replace("base_model.model.", ""), value)), ["does not begin with base_model.model."]),
    (rename_keys(lambda key, value: (key.replace("c_attn", "c_atn"), value)), ["the model has no layer 'transformer.h.", "c_atn'", "transformer.h.*.attn.c_attn"]),
    (rename_keys(lambda key, value: (key, value[:, :-1].contiguous() if "lora_A" in key else value)), ["has shape [8, 31], but the model needs [8, 32]"]),
    (rename_keys(lambda key, value: (key.replace("lora_B", "lora_C"), value)), ["c_attn' are not two matrices of one rank"]),
])
@pytest.mark.parametrize("verb", slow_but(["train"], ["export", "train", "validate"]))
def test_mistakes(verb, damage, words, starts, tmp_path):
    adapter("gpt", starts("gpt") / "theirs", tmp_path / "adapter", "default")
    damage(tmp_path / "adapter")
    if verb == "export":
        done = runs.tessera("export", starts("gpt") / "ours", tmp_path / "merged", "--adapter", tmp_path / "adapter")
    else:
        done = runs.tessera(verb, recipe(tmp_path, "gpt", starts("gpt") / "theirs", adapt={"method": "lora", "from": str(tmp_path / "adapter")}))
        assert "recipe.yaml:" in done.stderr and "adapt.from" in done.stderr
    assert done.returncode == 2, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_nothing_to_merge(starts, tmp_path):
    done = runs.tessera("export", starts("gpt") / "ours", tmp_path / "out", "--merge")
    assert done.returncode == 2 and "is of no LoRA run" in done.stderr
