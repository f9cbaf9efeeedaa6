"""Our scores of fine-tuned models equal those of scikit-learn, scipy and seqeval, and of SQuAD's rules written anew."""
import collections
import json
import math
import os
import random
import subprocess
import unicodedata

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from seqeval.metrics import accuracy_score as tag_accuracy
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as entity_scores

TOOL = os.path.join(os.environ.get("TESSERA_BUILD", "build/release"), "tool_task_metrics")
pytestmark = pytest.mark.filterwarnings("ignore")


def score(cases, folder):
    path = folder / "cases.json"
    path.write_text(json.dumps(cases))
    run = subprocess.run([TOOL, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    scores = json.loads(run.stdout)
    assert len(scores) == len(cases)
    return scores


def close(ours, theirs):
    """Equal to rounding; NaN comes as None."""
    ours = np.array([math.nan if x is None else x for x in ours], dtype=float)
    np.testing.assert_allclose(ours, np.array(theirs, dtype=float), rtol=1e-9, atol=1e-12)


# --- one class per example ---

def class_cases():
    r = random.Random(1)
    cases = [(1, [0, 0], [0, 0]), (2, [0, 0], [0, 0]), (2, [1], [1]), (2, [1, 1], [0, 0]), (2, [0, 1, 0], [1, 0, 1]),
             (3, [0, 1, 2, 2], [0, 0, 0, 0]), (3, [0, 0, 0], [0, 1, 2]), (5, [4, 4], [4, 1])]
    for _ in range(300):
        classes = r.choice([2, 2, 3, 5, 20])
        count, right = r.randrange(1, 60), r.random()
        truths = [r.randrange(classes) for _ in range(count)]
        cases.append((classes, truths, [t if r.random() < right else r.randrange(classes) for t in truths]))
    return cases


def test_classes(tmp_path):
    cases = class_cases()
    scores = score([{"kind": "classes", "num_classes": c, "truths": t, "predictions": p} for c, t, p in cases], tmp_path)
    for (classes, truths, predictions), ours in zip(cases, scores):
        def f1(average):
            return sklearn.metrics.f1_score(truths, predictions, average=average, zero_division=0)
        assert ours["confusion"] == sklearn.metrics.confusion_matrix(truths, predictions, labels=range(classes)).tolist()
        binary = sklearn.metrics.f1_score([t == 1 for t in truths], [p == 1 for p in predictions], zero_division=0)
        close(ours["f1"], [f1("macro"), f1("weighted"), binary])
        close([ours["accuracy"]] * 2, [sklearn.metrics.accuracy_score(truths, predictions), f1("micro")])
        close([ours["matthews"]], [sklearn.metrics.matthews_corrcoef(truths, predictions)])
        each = sklearn.metrics.precision_recall_fscore_support(truths, predictions, labels=range(classes), zero_division=0)
        close(np.array(ours["classes"]).T.ravel(), np.array(each).ravel())


def test_no_examples_score_zero(tmp_path):
    empty = {"truths": [], "predictions": []}
    classes, labels, numbers, entities, answers = score(
        [{"kind": "classes", "num_classes": 2, **empty}] + [{"kind": k, **empty} for k in ("label sets", "numbers", "entities", "answers v2")], tmp_path)
    assert classes["f1"] == [0, 0, 0] and classes["accuracy"] == 0 and classes["matthews"] == 0
    assert labels == {"accuracy": 0, "f1": [0, 0, 0], "labels": []}
    assert numbers == [None] * 4
    assert entities == {"all": [0, 0, 0, 0], "types": {}, "accuracy": 0, "entities": []}
    assert answers["all"] == [0, 0, 0]


# --- several labels per example ---

def test_label_sets(tmp_path):
    r = np.random.default_rng(2)
    cases = [(np.zeros((3, 2), int), np.zeros((3, 2), int)), (np.ones((1, 1), int), np.ones((1, 1), int)),
             (np.zeros((2, 3), int), np.ones((2, 3), int)), (np.array([[0, 1], [0, 0]]), np.array([[0, 1], [0, 1]]))]
    for _ in range(200):
        shape, share = (r.integers(1, 30), r.integers(1, 8)), r.random()
        truths = (r.random(shape) < share).astype(int)
        cases.append((truths, np.where(r.random(shape) < r.random(), truths, r.integers(0, 2, shape))))
    scores = score([{"kind": "label sets", "truths": t.tolist(), "predictions": p.tolist()} for t, p in cases], tmp_path)
    for (truths, predictions), ours in zip(cases, scores):
        if truths.shape[1] > 1:  # scikit-learn takes a single column for one class per example
            close(ours["f1"], [sklearn.metrics.f1_score(truths, predictions, average=a, zero_division=0) for a in ("micro", "macro", "samples")])
            each = sklearn.metrics.precision_recall_fscore_support(truths, predictions, average=None, zero_division=0)
            close(np.array(ours["labels"]).T.ravel(), np.array(each).ravel())
        close([ours["accuracy"]], [(truths == predictions).all(1).mean()])
        if truths.shape[1] > 1:
            close([ours["accuracy"]], [sklearn.metrics.accuracy_score(truths, predictions)])


# --- numbers ---

def test_numbers(tmp_path):
    r = np.random.default_rng(3)
    nan = math.nan
    cases = [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0.1, 0.1, 0.1]), ([0, 0], [0, 0]), ([1, 2], [5, 3]), ([1, 2, 3], [3, 2, 1]),
             ([1, 1, 2, 2], [1, 2, 1, 2]), ([nan, 1, 2], [1, 2, 3]), ([1e150, -1e150, 3], [1, 2, 4]), ([1e-200, 2e-200, 5e-200], [1, 3, 2]),
             ([1e9 + 1, 1e9 + 2, 1e9 + 3], [1, 3, 2]), ([0.0, -0.0, 1], [2, 1, 3])]
    for i in range(300):
        count = r.integers(2, 60)
        truths = r.normal(size=count) if i % 2 else r.integers(0, 6, count).astype(float)
        predictions = truths * r.normal() + r.normal(size=count) * r.choice([0, 0.1, 3])
        cases.append((truths.tolist(), (predictions if i % 3 else predictions.round()).tolist()))
    as_json = [[None if x != x else x for x in case] for pair in cases for case in pair]
    scores = score([{"kind": "numbers", "truths": as_json[i], "predictions": as_json[i + 1]} for i in range(0, len(as_json), 2)], tmp_path)
    for (truths, predictions), ours in zip(cases, scores):
        difference = np.array(truths) - np.array(predictions)
        close(ours, [scipy.stats.pearsonr(truths, predictions)[0], scipy.stats.spearmanr(truths, predictions)[0],
                     (difference ** 2).mean(), abs(difference).mean()])


def test_one_number_has_no_correlation(tmp_path):
    assert score([{"kind": "numbers", "truths": [1], "predictions": [3]}], tmp_path) == [[None, None, 4, 2]]


# --- entities ---

ODD_TAGS = ["O", "B", "I", "E", "S", "B-", "I-", "BPER", "B-A-B", "IX-A", "O-A", ".", "B-ünï", "I-ünï", "É-A", "L-A", "U-B"]


def tags(r, kind):
    """A sentence of a scheme's letters in any order, of odd tags, or without entities."""
    words = r.randrange(1, 12)
    if kind == "outside":
        return ["O"] * words
    if kind == "odd":
        return [r.choice(ODD_TAGS) for _ in range(words)]
    return [r.choice(["O", *(f"{letter}-{type_}" for letter in kind for type_ in ("A", "B"))]) for _ in range(words)]


def entity_cases():
    r = random.Random(4)
    cases = [([["B-A", "I-A", "O"]], [["I-A", "I-A", "O"]]), ([["B-A", "B-A"]], [["B-A", "I-A"]]), ([["B-A", "I-B"]], [["B-A", "I-A"]]),
             ([["I-A"], ["I-A"]], [["I-A"], ["O"]]), ([["O", "O"]], [["O", "O"]]), ([["O"]], [["B-A"]]), ([["S-A", "S-A", "E-A"]], [["S-A", "B-A", "E-A"]]),
             ([["B-A"], [], ["I-A"]], [["B-A"], [], ["I-A"]])]
    for i in range(600):
        kind = ["BI", "I", "IE", "BIES", "outside", "odd"][i % 6]
        # seqeval lets what follows "." in one sentence begin in the sentence before: not worth equalling.
        truths = [tags(r, kind) for _ in range(1 if kind == "odd" else r.randrange(1, 5))]
        right = r.random()
        predictions = [[tag if r.random() < right else r.choice(tags(r, kind)) for tag in sentence] for sentence in truths]
        cases.append((truths, predictions))
    return cases


def test_entities(tmp_path):
    cases = entity_cases()
    scores = score([{"kind": "entities", "truths": t, "predictions": p} for t, p in cases], tmp_path)
    for (truths, predictions), ours in zip(cases, scores):
        starts = np.cumsum([0] + [len(sentence) + 1 for sentence in truths])
        found = [[type_, int(begin + starts[s]), int(end - 1 + starts[s])] for type_, s, begin, end in ours["entities"]]
        assert found == [list(e) for e in get_entities(truths)], truths
        close(ours["all"], entity_scores(truths, predictions, average="micro"))
        each = np.array(entity_scores(truths, predictions, average=None))
        names = sorted({e[0] for e in get_entities(truths) + get_entities(predictions)})
        assert sorted(ours["types"]) == names
        if names:
            close(np.array([ours["types"][name] for name in names]).T.ravel(), each.ravel())
        close([ours["accuracy"]], [tag_accuracy(truths, predictions)])


# --- answers ---

def words_of(text):
    """SQuAD's rules, character by character."""
    kept = "".join(c for c in text.lower() if not (c.isascii() and unicodedata.category(c)[0] in "PS"))
    runs = []  # (class, characters), classes: word, other, space
    for c in kept:
        kind = "space" if c.isspace() else "word" if c.isalnum() else "other"
        if runs and runs[-1][0] == kind:
            runs[-1][1].append(c)
        else:
            runs.append((kind, [c]))
    texts = [" " if kind == "space" or "".join(run) in ("a", "an", "the") else "".join(run) for kind, run in runs]
    return "".join(texts).split()


def answer_scores(golds, prediction, version):
    def f1(gold):
        ours, theirs = words_of(prediction), words_of(gold)
        if version == 2 and not (ours and theirs):
            return float(ours == theirs)
        common = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
        return 2 * common / (len(ours) + len(theirs)) if common else 0.0
    if version == 2:
        golds = [g for g in golds if words_of(g)] or [""]
    return max(float(words_of(g) == words_of(prediction)) for g in golds), max(map(f1, golds))


VOCABULARY = ["the", "The", "a", "an", "AN", "theory", "cat", "cat", "cat's", "dog", "dog,", "(dog)", "U.S.A.", "_x_", "3.14", "$5",
              "İstanbul", "ΟΔΟΣ", "Σ", "straße", "ẞ", "naïve", "A\u0301", "a\u0301b", "\u0301a", "\u0301", "“quoted”", "the—end", "a-b", "漢字", "Ⅷ", "½the",
              "٣", "\u00ad", "a\u200bb", "🙂", "the🙂a", "...", "!", "``", "Ç"]
SPACES = [" ", " ", " ", "  ", "\t", "\n", "\u00a0", "\u3000", "\x1c", "\x1f", "\x85", "\u2028", "", "\u200b"]


def text(r, most=6):
    return "".join(r.choice(VOCABULARY) + r.choice(SPACES) for _ in range(r.randrange(most)))


@pytest.mark.parametrize("version", [1, 2])
def test_answers(tmp_path, version):
    r = random.Random(5)
    cases = [([[""], [], ["the"], ["the", "cat"]], ["", "", "", "a"]) if version == 2 else ([["the"], ["x", "the"]], ["a", "."])]
    for _ in range(200):
        truths, predictions = [], []
        for _ in range(r.randrange(1, 8)):
            golds = [text(r) or "x" for _ in range(r.randrange(1, 4))]
            if version == 2 and r.random() < 0.3:
                golds = r.choice([[], [""]])
            truths.append(golds)
            predictions.append(r.choice([text(r), "", r.choice(golds or ["cat"]), " ".join(golds).upper()]))
        cases.append((truths, predictions))
    scores = score([{"kind": f"answers v{version}", "truths": t, "predictions": p} for t, p in cases], tmp_path)
    for (truths, predictions), ours in zip(cases, scores):
        assert ours["normalized"] == [" ".join(words_of(p)) for p in predictions]
        each = np.array([answer_scores(g, p, version) for g, p in zip(truths, predictions)])
        answered = np.array([any(golds) for golds in truths])
        for name, chosen in (("all", answered | True), ("with_answer", answered), ("without_answer", ~answered)):
            means = each[chosen].mean(0) if chosen.any() else [0, 0]
            close(ours[name], [*means, chosen.sum()])


def test_lower_case_of_every_character(tmp_path):
    characters = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cs", "Cn")]
    [scores] = score([{"kind": "answers v2", "truths": [[]] * len(characters), "predictions": [f"x{c}y" for c in characters]}], tmp_path)
    for c, ours in zip(characters, scores["normalized"]):
        assert ours == " ".join(words_of(f"x{c}y")), hex(ord(c))


# --- what is refused ---

@pytest.mark.parametrize("case, message", [
    ({"kind": "classes", "num_classes": 2, "truths": [0, 1], "predictions": [0]}, "2 truths but 1 predictions"),
    ({"kind": "classes", "num_classes": 2, "truths": [0, 2], "predictions": [0, 0]}, "truth 2 of example 1 is no class; valid: 0 to 1"),
    ({"kind": "classes", "num_classes": 2, "truths": [0], "predictions": [-100]}, "prediction -100 of example 0"),
    ({"kind": "classes", "num_classes": 5000, "truths": [0], "predictions": [0]}, "5000 classes; valid: at most 4096"),
    ({"kind": "label sets", "truths": [[0, 1], [1]], "predictions": [[0, 1], [1, 0]]}, "truths of example 1 have 1 labels"),
    ({"kind": "label sets", "truths": [[0, 1]], "predictions": [[0, 3]]}, "prediction 3 of example 0; valid: 0 or 1"),
    ({"kind": "numbers", "truths": [1], "predictions": []}, "1 truths but 0 predictions"),
    ({"kind": "entities", "truths": [["O"]], "predictions": [["O", "O"]]}, "sentence 0 has 1 tags but 2 predictions"),
    ({"kind": "entities", "truths": [["O"], [""]], "predictions": [["O"], ["O"]]}, "an empty tag in sentence 1"),
    ({"kind": "answers v1", "truths": [["x"], []], "predictions": ["x", ""]}, "question 1 has no answer"),
    ({"kind": "answers v2", "truths": [[]], "predictions": []}, "1 questions but 0 predictions"),
])
def test_errors(tmp_path, case, message):
    [ours] = score([case], tmp_path)
    assert message in ours.get("error", "no error")
