"""Damaged and malicious files: model folders, adapters, tokenizers and records, hundreds of mutations, each read or refused with one
clear message in bounded memory and time; a few of each kind in the fast tier. TESSERA_BUILD=build/asan runs it under sanitizers."""
import json
import random
import shutil
import subprocess

import pytest
import runs
import torch
from test_peft import adapter
from test_start import save_random

TOOL = runs.BUILD / "tool_hostile_files"
COUNTS = {"model.safetensors": 60, "config.json": 60, "adapter_model.safetensors": 50, "adapter_config.json": 50, "tokenizer.json": 60, "records": 80}
PEAK_MIB = 400


def flip(content, draw):
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1:]


def cut(content, draw):
    return content[:draw.randrange(len(content))]


def grow(content, draw):
    at = draw.randrange(len(content))
    return content[:at] + bytes(draw.randrange(256) for _ in range(draw.choice([1, 7, 300]))) + content[at:]


def repeat(content, draw):
    at = draw.randrange(len(content))
    return content[:at] + content[at:at + 64] * draw.choice([2, 50]) + content[at:]


def header_length(content, draw):
    length = draw.choice([0, 1, 2**31, 2**40, 2**63 - 1, 2**64 - 1, len(content), len(content) - 8])
    return length.to_bytes(8, "little") + content[8:]


VALUES = [None, -1, 0, 1, 2**31, 2**62, 2**70, 1e300, "", "x", [], {}, [[[[]]]], True, "\u0000", "A" * 70000, [1] * 5000]


def another_value(content, draw):
    """A value somewhere in the JSON is another one, or goes, or a level deeper."""
    skip = 8 + int.from_bytes(content[:8], "little") if content[:1] != b"{" else 0
    text = content[8:skip] if skip else content
    data = json.loads(text)
    place = data
    while True:
        keys = list(place.keys()) if isinstance(place, dict) else list(range(len(place)))
        key = draw.choice(keys)
        if isinstance(place[key], (dict, list)) and len(place[key]) and draw.random() < 0.8:
            place = place[key]
            continue
        if draw.random() < 0.2:
            del place[key]
        else:
            place[key] = draw.choice(VALUES)
        break
    changed = json.dumps(data).encode()
    return len(changed).to_bytes(8, "little") + changed + content[skip:] if skip else changed


def deep(content, draw):
    return content.rstrip()[:-1] + b', "deep": ' + b"[" * 100000 + b"]" * 100000 + b"}"


def twice(content, draw):
    return content.rstrip()[:-1] + b', ' + content.lstrip()[1:]


BINARY = [flip, cut, grow, repeat, header_length, another_value]
JSON = [flip, cut, grow, repeat, another_value, another_value, another_value, deep, twice]


def records(draw):
    """The text of a file, and its ending."""
    rows = [{"text": f"text number {i} ü", "label": draw.choice(["a", "b"])} for i in range(20)]
    lines = [json.dumps(row) for row in rows]
    at = draw.randrange(len(lines))
    lines[at] = draw.choice(["{", "[]", "null", '{"text": 1}', '{"label": "a"}', '{"text": [], "label": {}}', '{"text": "\\ud800", "label": "a"}', '{"text": "x", "text": "y", "label": "a"}',
                             "{" * 5000, '{"text": "' + "x" * 200000 + '", "label": "a"}', '{"text": "a\\u0000b", "label": "a"}', lines[at], lines[at].replace("label", "lable")])
    content = "\n".join(lines).encode()
    kind = draw.choice(["jsonl", "jsonl", "csv", "tsv"])
    if kind != "jsonl":
        separator = "," if kind == "csv" else "\t"
        content = (f"text{separator}label\n" + "".join(f'"text, {i}"{separator}{draw.choice("ab")}\n' for i in range(20))).encode()
    return draw.choice([lambda c, d: c, flip, cut, grow, repeat])(content, draw), kind


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow, id="all"), pytest.param(6, id="every sixth")])
def cases(tmp_path_factory, request):
    """[(line for the tool, path that a message must name)]"""
    folder = tmp_path_factory.mktemp("hostile")
    draw = random.Random(11)
    for family in ("bert", "gpt"):
        save_random(family, folder / family)
        adapter(family, folder / family, folder / f"{family}-adapter", "patterns")
    made = []
    for name, count in COUNTS.items():
        for number in range(count // request.param):
            family = draw.choice(["bert", "gpt"])
            own = folder / f"{name}-{number}"
            if name == "records":
                content, kind = records(draw)
                own.mkdir()
                (own / f"data.{kind}").write_bytes(content)
                made.append((f"records {own}/data.{kind} {folder}/bert/tokenizer.json", own))
                continue
            source = folder / (f"{family}-adapter" if "adapter" in name else family)
            shutil.copytree(source, own)
            content = (own / name).read_bytes()
            for _ in range(draw.choice([1, 1, 2])):
                mutate = draw.choice(BINARY if name.endswith("safetensors") else JSON)
                try:
                    content = mutate(content, draw)
                except (ValueError, IndexError, KeyError, RecursionError, UnicodeDecodeError):  # no JSON any more
                    content = flip(content, draw) if content else b"x"
            (own / name).write_bytes(content)
            if name == "tokenizer.json":
                made.append((f"tokenizer {own}/tokenizer.json", own))
            elif "adapter" in name:
                made.append((f"adapter {own} {folder}/{family}", own))
            else:
                made.append((f"model {own}", own))
    return made


def test_each_is_read_or_refused(cases):
    torch.manual_seed(0)
    done = subprocess.run([TOOL], input="\n".join(line for line, _ in cases) + "\n", capture_output=True, text=True, timeout=900,
                          env=runs.environment(), cwd=runs.ROOT)
    *results, peak = [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else [*done.stdout.splitlines(), 0]
    assert done.returncode == 0 and len(results) == len(cases), (
        f"case {len(results)} of {len(cases)} ended the program: {cases[min(len(results), len(cases) - 1)][0]}\n{done.stderr[-4000:]}")
    refused = 0
    for (line, own), result in zip(cases, results, strict=True):
        if result["ok"]:
            continue
        refused += 1
        message = result["message"]
        assert str(own) in message or "recipe" in message, (line, message)
        assert 10 < len(message) < 3000 and message.count("\n") < 20, (line, message[:3000])
        assert "c10" not in message and "terminate" not in message, message
    assert len(cases) > 50 and refused > len(cases) / 2, (refused, len(cases))
    if "asan" not in str(runs.BUILD):
        assert peak < PEAK_MIB


@pytest.mark.parametrize("kind", ["model", "adapter", "records"])
def test_the_program_says_it_in_one_message(kind, cases, tmp_path):
    """Through the command line: one message, code 2."""
    tried = 0
    for line, own in cases:
        words = line.split()
        if words[0] != kind or tried == 4:
            continue
        if kind == "model":
            verb = ["import", own, tmp_path / f"out{tried}"]
        elif kind == "adapter":
            run = tmp_path / words[2].rsplit("/", 1)[1]
            if not run.exists():
                runs.must(runs.tessera("import", words[2], run))
            verb = ["export", run, tmp_path / f"out{tried}", "--adapter", own]
        else:
            run = tmp_path / "none"
            recipe = runs.recipe(tmp_path / f"r{tried}", "bert", whole_objective={"name": "sequence_classification"},
                                 data={"train": words[1], "validation": None, "tokenizer": words[2]}, train={"steps": 1})
            verb = ["train", recipe]
        done = runs.tessera(*verb)
        tried += 1
        assert done.returncode in (0, 2), (line, done.returncode, done.stderr[-2000:])
        if done.returncode == 2:
            assert done.stderr.count("tessera: ") == 1 and len(done.stderr) < 3000, done.stderr
    assert tried == 4
