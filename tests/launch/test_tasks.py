"""Fine-tuning tasks from files to predictions: they learn, their metrics are the packages', mistakes are told by file and line."""
import json

import pytest
import runs
import sklearn.metrics
import task_files
import yaml

LEARNT = {"sequence_classification": ("accuracy", 0.9), "token_classification": ("entity_f1", 0.9)}


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module", params=[(family, task) for family in runs.FAMILIES for task in LEARNT], ids="-".join)
def trained(request, tmp_path_factory):
    family, task = request.param
    folder = tmp_path_factory.mktemp(f"{family}-{task}")
    recipe = task_files.recipe(folder, family, task, task_files.ROWS[task](400), optimizer={"learning_rate": 5e-3}, model={"num_layers": 2},
                               train={"steps": 200}, evaluate={"predictions": True, "metric": LEARNT[task][0], "every": 50}, log={"every": 50})
    runs.must(runs.tessera("train", recipe))
    return family, task, folder


def test_learns(trained):
    _, task, folder = trained
    metric, least = LEARNT[task]
    assert runs.metrics(folder / "run", "validation_" + metric)[200] >= least


def test_predictions_and_metrics(trained):
    _, task, folder = trained
    rows = lines_of(folder / "run/predictions-200.jsonl")
    given = lines_of(folder / "validation.jsonl")
    assert [row["index"] for row in rows] == list(range(24))
    if task == "token_classification":
        truths = [tag for row in rows for tag in row["label"]]
        predictions = [tag for row in rows for tag in row["prediction"]]
        assert all(row["label"] == source["tags"][:len(row["label"])] for row, source in zip(rows, given))
    else:
        truths, predictions = [row["label"] for row in rows], [row["prediction"] for row in rows]
        assert truths == [row["label"] for row in given]
        f1 = sklearn.metrics.f1_score(truths, predictions, average="macro")
        assert runs.metrics(folder / "run", "validation_f1_macro")[200] == pytest.approx(f1)
    assert runs.metrics(folder / "run", "validation_accuracy")[200] == pytest.approx(sklearn.metrics.accuracy_score(truths, predictions))
    confusion = json.loads((folder / "run/confusion-200.json").read_text())
    assert confusion["counts"] == sklearn.metrics.confusion_matrix(truths, predictions, labels=confusion["labels"]).tolist()


def test_evaluate_tells_the_same(trained, tmp_path):
    _, task, folder = trained
    done = runs.must(runs.tessera("evaluate", folder / "run", "--predictions", tmp_path / "p.jsonl", "--micro-batch", 5))
    ours, theirs = lines_of(tmp_path / "p.jsonl"), lines_of(folder / "run/predictions-200.jsonl")
    assert [row["prediction"] for row in ours] == [row["prediction"] for row in theirs]
    metric, _ = LEARNT[task]
    told = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith(metric + " "))
    assert float(told) == pytest.approx(runs.metrics(folder / "run", "validation_" + metric)[200], abs=1e-4)
    assert "truth" in done.stdout and "predictions" in done.stdout
    labels = yaml.safe_load((folder / "run/recipe.yaml").read_text())["objective"]["labels"]
    assert labels == (["neutral", "no", "yes"] if task == "sequence_classification" else ["B-LOC", "B-PER", "O"])


def test_questions_with_and_without_answers(tmp_path):
    rows = task_files.questions(120, unanswered=True)
    recipe = task_files.recipe(tmp_path, "bert", "question_answering", rows, train={"steps": 10}, evaluate={"predictions": True})
    runs.must(runs.tessera("train", recipe))
    found = lines_of(tmp_path / "run/predictions-10.jsonl")
    assert len(found) == 24 and any(not row["label"] for row in found)
    for row, source in zip(found, rows[-24:]):
        assert row["prediction"] in source["context"] and row["label"] == source["answers"]["text"]
        assert (row["prediction"] == "") == (row["null_score"] > row["score"])


@pytest.mark.parametrize("problem,rows", [
    ("multi_label", [{"text": f"{word} text", "label": [word, "all"] if word == "some" else []} for word in ("some", "none") * 30]),
    ("regression", [{"text": "good " * (i % 7 + 1), "label": i % 7 / 2} for i in range(60)]),
    ("regression", [{"text": "good " * (i % 7 + 1), "label": [i % 7, -1.5]} for i in range(60)]),
], ids=["multi_label", "regression", "two numbers"])
def test_other_problems(problem, rows, tmp_path):
    recipe = task_files.recipe(tmp_path, "bert", "sequence_classification", rows, objective={"problem": problem}, train={"steps": 60},
                               optimizer={"learning_rate": 5e-3}, evaluate={"predictions": True}, log={"every": 60})
    runs.must(runs.tessera("train", recipe))
    found = lines_of(tmp_path / "run/predictions-60.jsonl")
    if problem == "multi_label":
        assert runs.metrics(tmp_path / "run", "validation_f1_micro")[60] > 0.9
        assert [row["label"] for row in found] == [sorted(row["label"]) for row in rows[-24:]]
    else:
        assert runs.metrics(tmp_path / "run", "validation_mean_squared_error")[60] < 0.9
        assert not runs.metrics(tmp_path / "run", "label_accuracy")
        first = [row["label"] if isinstance(row["label"], list) else [row["label"]] for row in rows[-24:]]
        assert [row["label"] for row in found] == first


def test_stops_without_progress_and_remembers(tmp_path):
    recipe = task_files.recipe(tmp_path, "bert", "sequence_classification", optimizer={"learning_rate": 1e-12},
                               train={"steps": 60}, evaluate={"every": 5, "metric": "accuracy", "patience": 3}, checkpoint={"every": 5})
    runs.must(runs.tessera("train", recipe, "train.stop_after=10"))
    done = runs.must(runs.tessera("train", recipe))
    assert "no better accuracy in 3 evaluations" in done.stderr
    assert max(runs.metrics(tmp_path / "run")) == 20  # the first one at 5, and three that are not better
    again = runs.must(runs.tessera("train", recipe))
    assert max(runs.metrics(tmp_path / "run")) == 20, again.stdout


def test_best_by_metric_is_kept(tmp_path):
    recipe = task_files.recipe(tmp_path, "gpt", "sequence_classification", optimizer={"learning_rate": 1e-2}, train={"steps": 60},
                               evaluate={"every": 10, "metric": "f1_macro"}, checkpoint={"every": 10, "keep": 1})
    runs.must(runs.tessera("train", recipe))
    scores = runs.metrics(tmp_path / "run", "validation_f1_macro")
    best = next(step for step, value in scores.items() if value == max(scores.values()))
    kept = {int(path.name.split("-")[1]) for path in (tmp_path / "run/checkpoints").glob("step-*")}
    assert kept == {best, 60}


def with_row(number, **values):
    def change(rows):
        rows[number].update(values)
    return change


MISTAKES = {
    "unknown label": ("sequence_classification", with_row(-3, label="yess"), {}, ["validation.jsonl:22", "'yess' is none of the 3 labels", "did you mean 'yes'"]),
    "one label": ("sequence_classification", lambda rows: [row.update(label="yes") for row in rows], {}, ["train.jsonl", "'yes' is the only label"]),
    "column": ("sequence_classification", lambda rows: None, {"text": "texts"}, ["train.jsonl:1", "texts", "did you mean 'text'"]),
    "twice": ("sequence_classification", lambda rows: None, {"labels": ["no", "yes", "no"]}, ["'no' stands twice"]),
    "tags": ("token_classification", with_row(2, tags=["O"]), {}, ["train.jsonl:3", "words in column 'tokens' but 1 tags"]),
    "number": ("sequence_classification", lambda rows: None, {"problem": "regression", "labels": ["x"]}, ["train.jsonl:1", "is no number"]),
    "outside": ("question_answering", with_row(1, answers={"text": ["x"], "answer_start": [9999]}), {}, ["train.jsonl:2", "outside its context"]),
    "stride": ("question_answering", lambda rows: None, {"stride": 48}, ["objective.stride", "at most 43"]),
    "answer": ("multiple_choice", with_row(4, answer="what"), {}, ["train.jsonl:5", "'what' in column 'answer'", "0 to 3"]),
    "one choice": ("multiple_choice", with_row(4, choices=["a"]), {}, ["train.jsonl:5", "1 choices", "2 to 1024"]),
}


@pytest.mark.parametrize("name,ranks", [*((name, 1) for name in MISTAKES), ("unknown label", 2)])
def test_mistakes(name, ranks, tmp_path):
    task, change, options, words = MISTAKES[name]
    rows = [dict(row) for row in task_files.ROWS[task](60)]
    change(rows)
    done = runs.tessera("train", task_files.recipe(tmp_path, "bert", task, rows, objective=options), ranks=ranks)
    assert done.returncode == 2, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize("family,task,changes,words", [
    ("bert", "sequence_classification", {"evaluate": {"metric": "acuracy"}}, ["evaluate.metric", "did you mean 'accuracy'", "f1_macro"]),
    ("bert", "question_answering", {"parallel": {"context": 2}}, ["parallel.context", "not possible with objective question_answering"]),
    ("bert", "multiple_choice", {"parallel": {"pipeline": 2}}, ["parallel.pipeline", "valid: 1"]),
    ("bert", "instruction", {}, ["objective.name", "does not fit model.family bert", "sequence_classification"]),
    ("bert", "sequence_classification", {"data": {"tokenizer": None}}, ["data.tokenizer", "holds no tokenizer"]),
    ("bert", "sequence_classification", {"data": {"train": "nowhere.jsonl"}}, ["nowhere.jsonl"]),
])
def test_recipes_that_cannot_be(family, task, changes, words, tmp_path):
    done = runs.tessera("train", task_files.recipe(tmp_path, family, task, **changes))
    assert done.returncode == 2, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_instructions_generate(tmp_path):
    rows = [{"prompt": "Say it.", "response": " the license"}] * 60
    runs.must(runs.tessera("train", task_files.recipe(tmp_path, "gpt", "instruction", rows, optimizer={"learning_rate": 1e-2}, train={"steps": 40})))
    done = runs.must(runs.tessera("generate", tmp_path / "run", "--prompt", "Say it.", "--greedy", "--json"))
    assert json.loads(done.stdout)["text"].strip() == "the license"


def test_validate_knows_tasks(tmp_path):
    done = runs.must(runs.tessera("validate", task_files.recipe(tmp_path, "bert", "token_classification")))
    assert "96 sequences" in done.stdout
