"""Fine-tuned heads from and to transformers: byte-equal round trips, labels, pipelines on what we trained, refusals."""
import json

import pytest
import runs
import safetensors.torch
import task_files
import torch
import transformers
from test_exchange import BERT, GPT1, GPT2, change_config, there_and_back
from test_exchange import MODELS, saved  # noqa: F401  (saved() reads MODELS)
from tiers import slow_but

NAMES = {"id2label": {0: "sad", 1: "glad", 2: "mad"}, "label2id": {"sad": 0, "glad": 1, "mad": 2}}


def bert(name, **changes):
    return lambda: getattr(transformers, name)(transformers.BertConfig(**BERT, **changes))


def gpt2(name, **changes):
    return lambda: getattr(transformers, name)(transformers.GPT2Config(**GPT2, **changes))


HEADS = {
    "BertForSequenceClassification": bert("BertForSequenceClassification", problem_type="single_label_classification", **NAMES),
    "BertForSequenceClassification, several": bert("BertForSequenceClassification", problem_type="multi_label_classification", **NAMES),
    "BertForSequenceClassification, numbers": bert("BertForSequenceClassification", num_labels=1, problem_type="regression"),
    "BertForTokenClassification": bert("BertForTokenClassification", **NAMES),
    "BertForQuestionAnswering": bert("BertForQuestionAnswering"),
    "BertForMultipleChoice": bert("BertForMultipleChoice"),
    "GPT2ForSequenceClassification": gpt2("GPT2ForSequenceClassification", pad_token_id=0, problem_type="single_label_classification", **NAMES),
    "GPT2ForTokenClassification": gpt2("GPT2ForTokenClassification", **NAMES),
    "GPT2ForQuestionAnswering": gpt2("GPT2ForQuestionAnswering"),
    "OpenAIGPTForSequenceClassification": lambda: transformers.OpenAIGPTForSequenceClassification(
        transformers.OpenAIGPTConfig(**GPT1, pad_token_id=0, problem_type="single_label_classification", **NAMES)),
}


@pytest.fixture(autouse=True)
def known_to_saved(monkeypatch):
    for name, make in HEADS.items():
        monkeypatch.setitem(MODELS, name, (make, "wordpiece" if name.startswith("Bert") else "byte_level_bpe"))


def outputs(model):
    ids = torch.arange(5, 29).view(2, 12) * 7 % 600
    with torch.no_grad():
        out = model(input_ids=ids.unsqueeze(0) if "MultipleChoice" in type(model).__name__ else ids)
    return [value for key, value in out.items() if "logits" in key]


@pytest.mark.parametrize("name", HEADS)
def test_round_trip_is_byte_equal(name, tmp_path):
    model = saved(tmp_path / "theirs", name)
    folder = there_and_back(tmp_path / "theirs", tmp_path)
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "theirs/model.safetensors").read_bytes()
    again = type(model).from_pretrained(folder).eval()
    for ours, theirs in zip(outputs(again), outputs(model), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    theirs, ours = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "theirs", folder))
    for key, value in ours.items():
        if key.endswith("token_id") or key == "classifier_dropout":  # the tokenizer's; and what transformers has no default for
            continue
        other = theirs[key] if key in theirs else getattr(model.config, key)
        assert value == (json.loads(json.dumps(other)) if key in ("id2label", "label2id") else other), key
    if "Choice" not in name and "Question" not in name and "numbers" not in name:
        assert again.config.id2label == NAMES["id2label"] and again.config.label2id == NAMES["label2id"]


FITTING = {"sequence_classification": "text-classification", "token_classification": "token-classification"}


@pytest.mark.parametrize("family,task", slow_but([("bert", "sequence_classification"), ("bert", "token_classification")],
                                                [(family, task) for family in runs.FAMILIES for task in FITTING]))
def test_pipelines_agree_with_our_predictions(family, task, tmp_path):
    recipe = task_files.recipe(tmp_path, family, task, train={"steps": 30}, evaluate={"predictions": True}, optimizer={"learning_rate": 5e-3})
    runs.must(runs.tessera("train", recipe))
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "model"))
    predictions = [json.loads(line) for line in (tmp_path / "run/predictions-30.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    pipeline = transformers.pipeline(FITTING[task], model=str(tmp_path / "model"), tokenizer=tokenizer)
    if task == "sequence_classification":
        labels = pipeline.model.config.id2label
        for row, ours in zip(rows, predictions):
            theirs = pipeline(row["text"], top_k=None, truncation=True, max_length=48)
            assert theirs[0]["label"] == ours["prediction"] or abs(theirs[0]["score"] - theirs[1]["score"]) < 1e-4
            scores = {label["label"]: label["score"] for label in theirs}
            assert [scores[labels[i]] for i in range(3)] == pytest.approx(ours["scores"], abs=1e-4)
        several = pipeline([row["text"] for row in rows], batch_size=6, truncation=True, max_length=48)
        assert [found["label"] for found in several] == [ours["prediction"] for ours in predictions]
    elif family == "bert":  # byte-level words differ: the pipeline sees the text, ours the words
        found = pipeline(" ".join(rows[0]["tokens"]))
        entities = [tag for tag in predictions[0]["prediction"] if tag != "O"]
        firsts = [item["entity"] for item in found if not item["word"].startswith("##")]
        assert [entity for entity in firsts if entity != "O"] == entities or len(firsts) != len(entities)


def test_an_imported_head_evaluates_and_has_its_objective(tmp_path):
    saved(tmp_path / "theirs", "BertForSequenceClassification")
    runs.must(runs.tessera("import", tmp_path / "theirs", tmp_path / "run"))
    path = task_files.write(tmp_path / "data.jsonl", [{"text": "some text", "label": "glad"}, {"text": "other text", "label": 2}])
    done = runs.must(runs.tessera("evaluate", tmp_path / "run", "--data", path, "--predictions", tmp_path / "p.jsonl"))
    assert "f1_macro" in done.stdout
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "theirs").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    with torch.no_grad():
        expected = model(**tokenizer(["some text", "other text"], return_tensors="pt", padding=True)).logits.softmax(1)
    assert [line["label"] for line in lines] == ["glad", "mad"]
    assert lines[0]["scores"] == pytest.approx(expected[0].tolist(), rel=1e-4)


def test_two_labels_without_names(tmp_path):
    saved(tmp_path / "theirs", "BertForSequenceClassification")
    change_config(tmp_path / "theirs", id2label=None, label2id=None, num_labels=3)
    folder = there_and_back(tmp_path / "theirs", tmp_path)
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


@pytest.mark.parametrize("changes,words", [
    ({"problem_type": "multi_label"}, ["problem_type", "unknown", "multi_label_classification"]),
    ({"id2label": {"0": "a", "2": "b"}}, ["id2label: no name for 1"]),
    ({"id2label": ["a"]}, ["id2label: no object"]),
    ({"id2label": {"0": "a", "1": "a", "2": "b"}}, ["'a' stands twice"]),
    ({"id2label": {str(i): str(i) for i in range(5)}}, ["classifier.weight"]),
])
def test_mistakes(changes, words, tmp_path):
    saved(tmp_path / "theirs", "BertForSequenceClassification")
    change_config(tmp_path / "theirs", **changes)
    done = runs.tessera("import", tmp_path / "theirs", tmp_path / "run")
    assert done.returncode == 2 and not (tmp_path / "run/checkpoints").exists(), done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_no_such_model_there(tmp_path):
    recipe = task_files.recipe(tmp_path, "gpt", "multiple_choice", train={"steps": 2})
    runs.must(runs.tessera("train", recipe))
    done = runs.tessera("export", tmp_path / "run", tmp_path / "model")
    assert done.returncode == 2 and "multiple_choice cannot be exported" in done.stderr


def test_weights_of_a_head_are_where_transformers_has_them(tmp_path):
    recipe = task_files.recipe(tmp_path, "gpt", "sequence_classification", train={"steps": 2})
    runs.must(runs.tessera("train", recipe))
    runs.must(runs.tessera("export", tmp_path / "run", tmp_path / "model"))
    assert safetensors.torch.load_file(tmp_path / "model/model.safetensors")["score.weight"].shape == (3, 32)
    assert json.loads((tmp_path / "model/config.json").read_text())["pad_token_id"] is not None
