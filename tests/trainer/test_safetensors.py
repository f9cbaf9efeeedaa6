"""Our safetensors files are the reference's, byte by byte; damaged ones are refused with one clear message."""
import json
import os
import pathlib
import random
import struct
import subprocess

import pytest
import safetensors
import safetensors.torch
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("TESSERA_BUILD", ROOT / "build/release")) / "tool_safetensors"
TYPES = [torch.float64, torch.int64, torch.float32, torch.int32, torch.bfloat16, torch.float16, torch.int16, torch.int8, torch.uint8,
         torch.bool]


def copy(*pairs):
    """A line for each pair of (source, target)."""
    done = subprocess.run([TOOL, *(path for pair in pairs for path in pair)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(pairs), done.stdout
    return lines


def tensors():
    torch.manual_seed(1)
    found = {}
    for index, dtype in enumerate(TYPES):
        for shape in [(), (0, 3), (1,), (3, 5), (2, 3, 4)]:
            values = torch.randint(0, 2 if dtype == torch.bool else 100, shape)
            found[f"layer.{index}.{len(shape)}.weight{shape}"] = values.to(dtype)
    found["Ä \"quoted\" \\ 名"] = torch.randn(7)
    return found


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_rewrites_the_reference_byte_by_byte(metadata, tmp_path):
    safetensors.torch.save_file(tensors(), tmp_path / "theirs.safetensors", metadata=metadata)
    assert copy((tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors")) == ["ok"]
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    assert not list(tmp_path.glob("*.part"))


def pack(header, buffer=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + buffer


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD = {
    "empty": (b"", "no safetensors file"),
    "short": (b"\0" * 7, "no safetensors file"),
    "header past the end": (struct.pack("<Q", 1000) + b"{}", "header of 1000 bytes is not in"),
    "huge header": (struct.pack("<Q", 2**63) + b"{}", "header of 9223372036854775808 bytes"),
    "no header": (pack(b""), "not JSON"),
    "not JSON": (pack(b"{'a': 1}"), "not JSON: at column 2"),
    "not UTF-8": (pack(b'{"\xff": 1}'), "not JSON"),
    "a list": (pack(b"[]"), "a JSON array, not an object"),
    "duplicate": (pack(b'{"a":' + json.dumps(entry([1], 0, 4)).encode() + b',"a":' + json.dumps(entry([1], 0, 4)).encode() + b"}", b"1234"),
                  "'a' stands twice"),
    "duplicate inside": (pack(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"), "'dtype' stands twice"),
    "deep": (pack(b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}"), "nested deeper than 64"),
    "entry": (pack({"a": 1}), "'a': is no JSON object"),
    "no dtype": (pack({"a": {"shape": [], "data_offsets": [0, 4]}}, b"1234"), "no dtype"),
    "unknown dtype": (pack({"a": entry([1], 0, 4, "F8_E4M3")}, b"1234"), "F8_E4M3\" cannot be read; valid: I64"),
    "dtype number": (pack({"a": entry([1], 0, 4, 5)}, b"1234"), "dtype 5 cannot be read"),
    "unknown key": (pack({"a": {**entry([1], 0, 4), "strides": [1]}}, b"1234"), "unknown key 'strides'"),
    "negative size": (pack({"a": entry([-1], 0, 4)}, b"1234"), "a size that is no size"),
    "fraction": (pack({"a": entry([1.0], 0, 4)}, b"1234"), "a size that is no size"),
    "overflow": (pack({"a": entry([2**62, 4], 0, 4)}, b"1234"), "does not fill"),
    "too large size": (pack({"a": entry([2**64], 0, 4)}, b"1234"), "a size that is no size"),
    "shape and bytes": (pack({"a": entry([2], 0, 4)}, b"1234"), "does not fill the 4 bytes"),
    "past the end": (pack({"a": entry([2], 0, 8)}, b"1234"), "not in the buffer of 4 bytes"),
    "reversed": (pack({"a": entry([1], 4, 0)}, b"1234"), "not in the buffer"),
    "three offsets": (pack({"a": {**entry([1], 0, 4), "data_offsets": [0, 4, 4]}}, b"1234"), "are not [begin, end]"),
    "overlap": (pack({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, b"123456789012"), "overlap"),
    "hole": (pack({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"123456789012"), "leave a hole"),
    "rest": (pack({"a": entry([1], 0, 4)}, b"12345"), "fill 4 of the buffer's 5 bytes"),
    "metadata list": (pack({"__metadata__": []}), "__metadata__ is no JSON object"),
    "metadata number": (pack({"__metadata__": {"format": 1}}), "'format' is no text"),
}
OWN = {"duplicate", "unknown key", "unknown dtype"}  # the reference takes the last, ignores it, has more types


@pytest.mark.parametrize("name", BAD)
def test_refuses(name, tmp_path):
    content, words = BAD[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    if name not in OWN:
        with pytest.raises(Exception):  # the reference does too
            with safetensors.safe_open(path, "pt") as file:
                for key in file.keys():
                    file.get_tensor(key)
    (message,) = copy((path, tmp_path / "out"))
    assert words in message and message.startswith(str(path)), message
    assert not (tmp_path / "out").exists()


def test_mutated_files_are_read_or_refused(tmp_path):
    """Single bytes changed, cut out or doubled: never another end than the same tensors or a message."""
    small = {name: value for name, value in tensors().items() if value.dim() == 2}
    safetensors.torch.save_file(small, tmp_path / "good.safetensors")
    good = (tmp_path / "good.safetensors").read_bytes()
    chance = random.Random(3)
    pairs = []
    for index in range(400):
        content = bytearray(good)
        place = chance.randrange(len(good) if chance.random() < 0.2 else 8 + struct.unpack("<Q", good[:8])[0])
        kind = chance.randrange(4)
        if kind == 0:
            content[place] = chance.randrange(256)
        elif kind == 1:
            del content[place:place + chance.randrange(1, 50)]
        elif kind == 2:
            content[place:place] = content[place:place + chance.randrange(1, 50)]
        else:
            del content[place:]
        pairs.append((tmp_path / f"mutated-{index}", tmp_path / f"out-{index}"))
        pairs[-1][0].write_bytes(content)
    lines = copy(*pairs)
    for (path, out), line in zip(pairs, lines):
        if line != "ok":
            assert line.startswith(str(path)) and not out.exists(), line
            continue
        theirs, ours = safetensors.torch.load_file(path), safetensors.torch.load_file(out)
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[name].view(-1).view(torch.uint8), ours[name].view(-1).view(torch.uint8)) for name in theirs)
    assert 250 < sum(line != "ok" for line in lines) < 400
