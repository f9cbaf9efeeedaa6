"""Rows of tokens as the tokenizers library makes them: special tokens, truncation, words, windows; answers where run_qa finds them."""
import json
import pathlib
import subprocess
import sys

import pytest
import tokenizers
from tiers import slow_but

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "launch"))
import runs  # noqa: E402
import task_files  # noqa: E402

TOOL = runs.BUILD / "tool_task_rows"


def rows_of(folder, family, objective, rows, length=48, **options):
    recipe = task_files.recipe(folder, family, objective, rows, objective=options, data={"sequence_length": length},
                               model={"max_positions": max(48, length)})
    done = subprocess.run([TOOL, recipe], capture_output=True, text=True, env=runs.environment())
    assert done.returncode == 0, done.stderr
    head, *found = [json.loads(line) for line in done.stdout.splitlines()]
    return head, found


def wheel(family, length, **truncation):
    tokenizer = tokenizers.Tokenizer.from_file(str(runs.data(runs.FAMILIES[family]["kind"]) / "tokenizer.json"))
    tokenizer.no_padding()
    if truncation is not None:
        tokenizer.enable_truncation(length, **truncation)
    return tokenizer


def post_processed(family):
    """Ours frames where there is [CLS]; so does the wheel, if the file says so."""
    content = json.loads((runs.data(runs.FAMILIES[family]["kind"]) / "tokenizer.json").read_text())
    return content["post_processor"] and content["post_processor"]["type"] == "TemplateProcessing"


@pytest.mark.parametrize("family", runs.FAMILIES)
def test_single_texts(family, tmp_path):
    assert post_processed("bert")
    rows = task_files.classes(60)
    rows[3]["text"] = ""
    head, found = rows_of(tmp_path, family, "sequence_classification", rows, 40)
    tokenizer = wheel(family, 40)
    cut = 0
    for row, ours in zip(rows, found):
        ids = tokenizer.encode(row["text"]).ids
        whole = wheel(family, 10000).encode(row["text"]).ids
        cut += len(whole) > 40
        assert ours["tokens"] == ids or (not ids and len(ours["tokens"]) == 1)
        assert ours["labels"] == [["neutral", "no", "yes"].index(row["label"])]
    assert f"{cut} cut to 40 tokens" in head["note"]
    assert 'labels: [neutral, "no", "yes"]' in head["objective"]


@pytest.mark.parametrize("family", runs.FAMILIES)
@pytest.mark.parametrize("truncate", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("length", slow_but([32], [17, 32, 46]))
def test_pairs(family, truncate, length, tmp_path):
    rows = [{**row, "other": " ".join(row["other"].split()[:2 + i % 9 * 3]), "text": " ".join(row["text"].split()[:1 + i % 7 * 4])}
            for i, row in enumerate(task_files.classes(90, pairs=True))]
    _, found = rows_of(tmp_path, family, "sequence_classification", rows, length, text_pair="other", truncate=truncate)
    tokenizer = wheel(family, length, strategy=truncate)
    compared = 0
    for row, ours in zip(rows, found):
        try:
            encoding = tokenizer.encode(row["text"], row["other"])
        except BaseException:  # the wheel gives up where the text is too short for what must go (and ours takes from the other)
            assert truncate != "longest_first" and len(ours["tokens"]) == length
            continue
        compared += 1
        assert ours["tokens"] == encoding.ids
        if family == "bert":
            assert ours["segments"] == encoding.type_ids
    assert compared >= 15


@pytest.mark.parametrize("family", runs.FAMILIES)
def test_words(family, tmp_path):
    rows = task_files.tags(60)
    _, found = rows_of(tmp_path, family, "token_classification", rows, 30)
    tokenizer = wheel(family, 30)
    names = ["B-LOC", "B-PER", "O"]
    for row, ours in zip(rows, found):
        encoding = tokenizer.encode(row["tokens"], is_pretokenized=True)
        assert ours["tokens"] == encoding.ids
        expected, before = [], None
        for word in encoding.word_ids:
            label = -1 if word is None else names.index(row["tags"][word])
            expected.append(label if word != before or word is None else -2 - label)
            before = word
        assert ours["labels"] == expected


def answer_tokens(encoding, start, end):
    """transformers' run_qa.py: the tokens of an answer in a window, or those of [CLS]."""
    context = [i for i, kind in enumerate(encoding.type_ids) if kind == 1 and not encoding.special_tokens_mask[i]]
    first, last = context[0], context[-1]
    if not (encoding.offsets[first][0] <= start and encoding.offsets[last][1] >= end):
        return 0, 0
    while first < len(encoding.offsets) and encoding.offsets[first][0] <= start:
        first += 1
        if first > last:
            break
    while encoding.offsets[last][1] >= end:
        last -= 1
    return first - 1, last + 1


def test_windows(tmp_path):
    rows = task_files.questions(60)
    rows[2]["context"] = "Ünïcödé 中文 " + rows[2]["context"]
    rows[2]["answers"]["answer_start"] = [rows[2]["answers"]["answer_start"][0] + len("Ünïcödé 中文 ")]
    rows[4]["answers"] = {"text": [], "answer_start": []}
    head, found = rows_of(tmp_path, "bert", "question_answering", rows, 40, stride=11)
    tokenizer = wheel("bert", 40, stride=11, strategy="only_second")
    found = iter(found)
    count = 0
    for row in rows[:-24]:
        encoding = tokenizer.encode(row["question"], row["context"])
        for window in [encoding, *encoding.overflowing]:
            ours = next(found)
            count += 1
            assert ours["tokens"] == window.ids and ours["segments"] == window.type_ids
            context = [i for i, kind in enumerate(window.type_ids) if kind == 1 and not window.special_tokens_mask[i]]
            assert ours["labels"][2:] == [context[0], context[-1] + 1]
            if not row["answers"]["text"]:
                assert ours["labels"][:2] == [0, 0]
                continue
            start = row["answers"]["answer_start"][0]
            assert tuple(ours["labels"][:2]) == answer_tokens(window, start, start + len(row["answers"]["text"][0]))
    assert count > 60 and next(found, None) is None
    assert "windows of 36 questions" in head["note"] and "not where" not in head["note"]


def test_prompts(tmp_path):
    rows = task_files.prompts(60)
    _, found = rows_of(tmp_path, "gpt", "instruction", rows, 200, template="Say: {prompt}\n")
    tokenizer = wheel("gpt", 10000)
    end = tokenizer.token_to_id("<|endoftext|>")
    for row, ours in zip(rows, found):
        prompt, response = tokenizer.encode(f"Say: {row['prompt']}\n").ids, tokenizer.encode(row["response"]).ids
        assert ours["tokens"] == [*prompt, *response, end]
        learnt = [i for begin, stop in zip(ours["labels"][::2], ours["labels"][1::2]) for i in range(begin, stop)]
        assert learnt == list(range(len(prompt), len(ours["tokens"])))


def test_messages(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"},
                          {"role": "user", "content": "four"}, {"role": "assistant", "content": "five six"}]}] * 30
    _, found = rows_of(tmp_path, "gpt", "instruction", rows, 200, messages="messages", turn="<{role}> {content}\n")
    tokenizer = wheel("gpt", 10000)
    end = tokenizer.token_to_id("<|endoftext|>")
    tokens, learnt = [], []
    for message in rows[0]["messages"]:
        tokens += tokenizer.encode(f"<{message['role']}> ").ids
        content = tokenizer.encode(message["content"] + "\n").ids
        if message["role"] == "assistant":
            content.append(end)
            learnt += range(len(tokens), len(tokens) + len(content))
        tokens += content
    ours = found[0]
    assert ours["tokens"] == tokens
    assert learnt == [i for begin, stop in zip(ours["labels"][::2], ours["labels"][1::2]) for i in range(begin, stop)]
