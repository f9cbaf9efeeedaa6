"""Fine-tuning tasks give the same curve and the same metrics on every mesh (dropout on, fp32, 12 steps)."""
import pytest
import runs
import task_files
from test_meshes import MESHES, all_at_once
from tiers import slow_but

BATCH = 12
NAMES = ["zero 1", "zero 3, 3 ranks, prefetch 2", "replicate 2 x zero 3", "tensor 2", "zero 3 x tensor 2", "ring 2", "ulysses 2", "zero 3 x ring 2",
         "ring 2 x tensor 2", "pipeline 2", "pipeline 3, own split", "tensor 2 x pipeline 2"]
TASKS = {"sequence_classification": {}, "multi_label": {"objective": "sequence_classification", "problem": "multi_label"},
         "token_classification": {}, "question_answering": {}, "multiple_choice": {}, "instruction": {}}
WHOLE = {"question_answering": ("ring", "ulysses"), "multiple_choice": ("ring", "ulysses", "pipeline")}
METRICS = {"sequence_classification": "f1_macro", "multi_label": "f1_macro", "token_classification": "entity_f1", "question_answering": "f1",
           "multiple_choice": "accuracy", "instruction": "lm_accuracy"}
CASES = [(family, task, name) for task in TASKS for family in runs.FAMILIES for name in NAMES
         if not any(axis in name for axis in WHOLE.get(task, ())) and not (task == "instruction" and family == "bert")]
FAST = [("bert", "sequence_classification", "zero 3 x ring 2"), ("gpt", "sequence_classification", "pipeline 2"), ("bert", "multi_label", "tensor 2"),
        ("bert", "token_classification", "ulysses 2"), ("bert", "question_answering", "tensor 2 x pipeline 2"),
        ("bert", "multiple_choice", "tensor 2"), ("gpt", "instruction", "zero 1")]


def rows_of(task):
    if task == "multi_label":
        return [{**row, "label": sorted({row["label"], "long" if len(row["text"]) > 90 else "short"})} for row in task_files.classes(96)]
    return task_files.ROWS[task](96)


def train(folder, family, task, ranks=1, parallel=None, **changes):
    parallel = parallel or {}
    options = dict(TASKS[task])
    objective = options.pop("objective", task)
    if objective == "multiple_choice":
        rows = task_files.choices(96, ragged=True)
    else:
        rows = rows_of(task)
    train = {"steps": 12, "global_batch": BATCH, "micro_batch": all_at_once(ranks, parallel, BATCH), **changes}
    recipe = task_files.recipe(folder, family, objective, rows, objective=options, train=train, parallel=parallel, optimizer={"learning_rate": 3e-3},
                               evaluate={"every": 6, "predictions": True}, data={"bucket": 2})
    runs.must(runs.tessera("train", recipe, ranks=ranks))
    return folder / "run"


def curves(run, task):
    found = {key: runs.metrics(run, key) for key in ("loss", "grad_norm", "validation_loss", "validation_" + METRICS[task])}
    assert [len(curve) for curve in found.values()] == [12, 12, 2, 2], found
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folders = {}

    def run(family, task):
        if (family, task) not in folders:
            folders[family, task] = train(tmp_path_factory.mktemp(f"{family}-{task}"), family, task, micro_batch=BATCH)
        return folders[family, task]

    return run


@pytest.mark.parametrize("family,task,name", slow_but(FAST, CASES))
def test_curve(family, task, name, reference, tmp_path):
    ranks, parallel, changes = MESHES[name]
    changes = {key: value for key, value in changes.items() if key != "micro_batch"}
    if "pipeline" in parallel:
        changes["micro_batch"] = 3
    run = train(tmp_path, family, task, ranks, parallel, **changes)
    expected = reference(family, task)
    for key, curve in curves(expected, task).items():
        assert runs.metrics(run, key) == pytest.approx(curve, rel=1e-5), key
    predictions = "predictions-12.jsonl"
    if (expected / predictions).exists():
        ours, theirs = ((folder / predictions).read_text().splitlines() for folder in (run, expected))
        assert len(ours) == len(theirs) == 24
        assert [line.split('"score')[0] for line in ours] == [line.split('"score')[0] for line in theirs]
    else:
        assert task == "instruction"
