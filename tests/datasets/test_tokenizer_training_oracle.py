"""Vocabularies that we train against those of the `tokenizers` package, on the same real text."""
import json
import os
import pydoc_data.topics
import subprocess

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

TOOL = os.path.join(os.environ.get("TESSERA_BUILD", "build/release"), "tool_tokenizer")
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Python's reference in English, and other scripts so that the alphabet is not only ASCII."""
    file = tmp_path_factory.mktemp("text") / "text.txt"
    lines = [line for line in "\n".join(pydoc_data.topics.topics.values()).split("\n") if line]
    lines += ["Größe naïve CAFÉ straße İstanbul", "漢字とかな 汉字", "Привет, мир! Здравствуй, мир", "한국어 텍스트"] * 3
    file.write_text("\n".join(lines), encoding="utf-8")
    return file, lines


def ours(kind, file, vocab_size, min_frequency, lowercase=True, special=()):
    arguments = [TOOL, "train", kind, str(file), str(vocab_size), str(min_frequency), str(int(lowercase)), *special]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["model"]


def wheels_wordpiece(lines, vocab_size, min_frequency, lowercase=True, special=BERT):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, min_frequency=min_frequency, limit_alphabet=1000,
                                        special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer.get_vocab()


@pytest.mark.parametrize("vocab_size,min_frequency", [(6000, 2), (1000, 0), (2000, 5)])
def test_byte_level_bpe_learns_the_same_tokens_and_merges(text, vocab_size, min_frequency):
    file, lines = text
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=["<|endoftext|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    theirs = json.loads(tokenizer.to_str())["model"]
    model = ours("byte_level_bpe", file, vocab_size, min_frequency)
    assert model["vocab"] == theirs["vocab"]
    assert model["merges"] == theirs["merges"]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("vocab_size,min_frequency", [(6000, 2), (2000, 5)])
def test_wordpiece_learns_the_same_tokens(text, vocab_size, min_frequency, lowercase):
    """The wheel numbers the continuing characters in the order of a hash table, which differs from run to run and decides
    ties. Listed as special tokens they have fixed ids in both, and the whole vocabulary must be equal."""
    file, lines = text
    continuing = sorted(t for t in ours("wordpiece", file, 10**6, 10**9, lowercase)["vocab"] if len(t) == 3 and t.startswith("##"))
    special = BERT + continuing
    theirs = wheels_wordpiece(lines, vocab_size, min_frequency, lowercase, special)
    assert ours("wordpiece", file, vocab_size, min_frequency, lowercase, special)["vocab"] == theirs


def test_wordpiece_differs_only_by_ties(text, tmp_path):
    """By default the wheel breaks ties differently each time: two of its vocabularies of 4,000 differ by 18 tokens in the
    median, by up to 66. So ours is compared with the nearest of many (in 60 runs: half within 12, 5 equal to ours)."""
    lines = text[1][:-12]
    file = tmp_path / "english.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    vocab = set(ours("wordpiece", file, 4000, 2)["vocab"])
    assert len(vocab) == 4000
    assert min(len(vocab ^ set(wheels_wordpiece(lines, 4000, 2))) for _ in range(20)) <= 12


def test_the_trained_file_loads_in_the_wheel(text, tmp_path):
    file, lines = text
    for kind, special in (("wordpiece", ["[CLS]", "[SEP]"]), ("byte_level_bpe", [])):
        result = subprocess.run([TOOL, "train", kind, str(file), "3000", "2", "1"], capture_output=True, text=True, check=True)
        wheel = Tokenizer.from_str(result.stdout)
        assert wheel.to_str() == result.stdout
        sentence = lines[5].strip()
        saved = tmp_path / f"{kind}.json"
        saved.write_text(result.stdout, encoding="utf-8")
        line = subprocess.run([TOOL, "encode", str(saved)], input=sentence.encode().hex() + "\n", capture_output=True, text=True).stdout
        ids = [int(x) for x in line.split("|")[0].split()]
        assert wheel.encode(sentence, add_special_tokens=False).ids == ids
        whole = [wheel.token_to_id(t) for t in special]
        assert wheel.encode(sentence).ids == whole[:1] + ids + whole[1:]
