"""`tessera prepare` seen from outside: its files as h5py reads them, its tokens against the tokenizers wheel."""
import gzip
import json
import os
import pathlib
import random
import re
import subprocess

import h5py
import numpy as np
import pytest
from tokenizers import Tokenizer

TESSERA = pathlib.Path(os.environ.get("TESSERA_BUILD", "build/release")) / "tessera"
WORDS = "the Package contains files; für données naïve C++ library 3.14 (unused) e.g. Ωmega tools 日本語 don't".split()


def prepare(*arguments):
    return subprocess.run([TESSERA, "prepare", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def documents():
    chance = random.Random(1)

    def sentence():
        return " ".join(chance.choices(WORDS, k=chance.randint(3, 20))).capitalize() + "."

    return ["\n".join(" ".join(sentence() for _ in range(chance.randint(1, 4))) for _ in range(chance.randint(1, 3)))
            for _ in range(300)]


@pytest.mark.parametrize("kind", ["wordpiece", "byte_level_bpe"])
def test_files_hold_the_tokens_of_the_wheel(tmp_path, documents, kind):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("\n\n".join(documents[:100]))
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in documents[100:])
    run = prepare(folder, "--output", tmp_path / "out", "--train-tokenizer", kind, "--vocab-size", 400, "--validation", 0.1)
    assert run.returncode == 0, run.stderr
    wheel = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    expected = sorted(wheel.encode(text, add_special_tokens=False).ids for text in documents)
    found = []
    for name in ["train", "validation"]:
        with h5py.File(tmp_path / f"out/{name}.h5") as file:
            tokens, starts, sentences = file["tokens"][:], file["documents"][:], file["sentences"][:]
            assert file.attrs["num_documents"] == len(starts) - 1 > 0
            assert file.attrs["num_sentences"] == len(sentences) - 1
            assert file.attrs["num_tokens"] == len(tokens) == starts[-1] == sentences[-1]
            assert tokens.dtype == np.uint16 and file.attrs["vocab_size"] == wheel.get_vocab_size()
            assert set(starts) <= set(sentences) and (np.diff(sentences.astype(int)) > 0).all()
            stored = file["tokenizer"][()]
            assert json.loads(stored) == json.loads((tmp_path / "out/tokenizer.json").read_text())
            share = np.bincount(tokens) / len(tokens)
            share = share[share > 0]
            assert file.attrs["unigram_entropy"] == pytest.approx(-(share * np.log(share)).sum())
            found += [tokens[a:b].tolist() for a, b in zip(starts[:-1], starts[1:])]
    assert sorted(found) == expected
    assert re.search(r"training .*train\.h5: \d+ documents", run.stdout)


@pytest.mark.parametrize("arguments, message", [
    (["missing.txt", "--output", "out", "--train-tokenizer", "wordpiece"], "missing.txt: no such file"),
    (["in.txt", "--output", "out"], "--train-tokenizer"),
    (["in.txt", "--output", "out", "--train-tokenizer", "wordpeace"], "wordpiece"),
    (["in.txt", "--output", "out", "--tokenizer", "nowhere"], "nowhere"),
    (["in.txt", "--output", "out", "--train-tokenizer", "wordpiece", "--vocab-size", "3"], "vocab"),
    (["in.txt", "--output", "out", "--train-tokenizer", "wordpiece", "--validation", "2"], "out of range"),
    (["in.txt", "--output", "out", "--train-tokenizer", "wordpiece", "--documents", "paragraph"], "blank_line"),
    (["cut.gz", "--output", "out", "--train-tokenizer", "wordpiece"], "cut.gz: damaged gzip"),
    (["in.txt", "--output", "/proc/out", "--train-tokenizer", "wordpiece"], "/proc/out"),
])
def test_mistakes_get_one_line_and_code_2(tmp_path, monkeypatch, arguments, message):
    (tmp_path / "in.txt").write_text("Some text. " * 50)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(os.urandom(10000))[:5000])
    program = TESSERA.resolve()
    monkeypatch.chdir(tmp_path)
    run = subprocess.run([program, "prepare", *arguments], capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    errors = [line for line in run.stderr.splitlines() if not line.startswith("counting words")]
    assert len(errors) == 1 and errors[0].startswith("tessera: ") and message in errors[0]
    assert not list(tmp_path.glob("out/*")) and not list(tmp_path.glob("out/.*"))
