"""Small files of every task, made of real sentences, with labels that can be learnt; and recipes for them."""
import functools
import json
import random

import runs


@functools.lru_cache
def sentences():
    words = [part.split() for part in runs.english().replace("\n", " ").split(". ")]
    return [" ".join(part[:24]) for part in words if len(part) > 5][:400]


def classes(count, pairs=False):
    """The class says which of three words the text begins with."""
    draw = random.Random(1)
    rows = []
    for text in sentences()[:count]:
        label = draw.choice(["neutral", "no", "yes"])
        row = {"text": f"{label[::-1]} {text}", "label": label}
        if pairs:
            row["other"] = draw.choice(sentences())
        rows.append(row)
    return rows


def tags(count):
    draw = random.Random(2)
    rows = []
    for text in sentences()[:count]:
        words = [draw.choice(["Smith", "Berlin", word]) for word in text.split()[:12]]
        rows.append({"tokens": words, "tags": [{"Smith": "B-PER", "Berlin": "B-LOC"}.get(word, "O") for word in words]})
    return rows


def questions(count, unanswered=False):
    """The answer follows the word that the question names."""
    draw = random.Random(3)
    rows = []
    for i, text in enumerate(sentences()[:count]):
        words = text.split()
        place = draw.randrange(len(words) - 1)
        context = " ".join(words)
        answer = words[place + 1]
        start = len(" ".join(words[:place + 1])) + 1
        answers = {"text": [answer], "answer_start": [start]}
        if unanswered and i % 3 == 0:
            answers = {"text": [], "answer_start": []}
        rows.append({"question": f"after {words[place]}", "context": context, "answers": answers})
    return rows


def choices(count, ragged=False):
    draw = random.Random(4)
    rows = []
    for text in sentences()[:count]:
        words = text.split()
        options = [" ".join(words[4:]), *[" ".join(draw.choice(sentences()).split()[4:]) for _ in range(draw.choice([1, 3]) if ragged else 3)]]
        order = draw.sample(range(len(options)), len(options))
        rows.append({"question": " ".join(words[:4]), "choices": [options[i] for i in order], "answer": order.index(0)})
    return rows


def prompts(count):
    return [{"prompt": " ".join(text.split()[:4]), "response": " " + " ".join(text.split()[4:])} for text in sentences()[:count]]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ROWS = {"sequence_classification": classes, "token_classification": tags, "question_answering": questions, "multiple_choice": choices,
        "instruction": prompts}
OPTIONS = {"question_answering": {"stride": 12, "max_answer_length": 8}}


def recipe(folder, family, task, rows=None, **changes):
    """As runs.recipe(), for a task: 120 samples, of which the last 24 validate."""
    rows = rows or ROWS[task](120)
    files = {"train": write(folder / "train.jsonl", rows[:-24]), "validation": write(folder / "validation.jsonl", rows[-24:])}
    kind = runs.FAMILIES[family]["kind"]
    changes = dict(changes)
    options = {**OPTIONS.get(task, {}), **changes.pop("objective", {})}
    path = runs.recipe(folder, family, **{
        **changes, "data": {**files, "sequence_length": 48, "tokenizer": str(runs.data(kind) / "tokenizer.json"), **changes.get("data", {})},
        "model": {"max_positions": 48, **changes.get("model", {})}})
    return runs.rewritten(path, objective={"name": task, **options})
