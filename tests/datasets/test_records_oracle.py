"""Our reader of records against Python's csv and json modules, on random content that is hard on readers."""
import csv
import io
import json
import os
import random
import subprocess

import pytest

from hostile_text import texts

TOOL = os.path.join(os.environ.get("TESSERA_BUILD", "build/release"), "tool_records")
WORDS = ['"', '""', ",", ";", "\t", "\n", "\r\n", "\r", "a", "b c", " ", "'", "\\", "[1, 2]", "null", "0", "-1.5e3", "\u2028", "\x85",
         "\x0b", "\ufeff", "#", "=1+1"]


def is_text(data):
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


HOSTILE = [data.decode() for data in texts(2000) if is_text(data)]


def value(r):
    return r.choice(HOSTILE) if r.random() < 0.2 else "".join(r.choice(WORDS) for _ in range(r.randrange(5)))


def read(path, content):
    """(columns, records), or None where it is refused."""
    path.write_bytes(content.encode())
    run = subprocess.run([TOOL, path], capture_output=True, text=True, encoding="utf-8")
    assert run.returncode in (0, 2) and (run.returncode == 0 or run.stderr.startswith(str(path))), run.stderr
    if run.returncode == 2:
        return None
    records = json.loads(run.stdout)
    return records["columns"], records["records"]


def table(rows):
    """What we should make of a table: None for what we should refuse."""
    rows = [row for row in rows if row]
    if len(rows) < 2 or len(set(rows[0])) < len(rows[0]) or any(len(row) != len(rows[0]) for row in rows):
        return None
    return rows[0], [dict(zip(rows[0], row)) for row in rows[1:]]


@pytest.mark.parametrize("quoting, line_end", [(csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_ALL, "\n"), (csv.QUOTE_ALL, "\r\n")])
def test_csv_as_python_writes_it(tmp_path, quoting, line_end):
    r = random.Random(quoting)
    for _ in range(30):
        columns = r.randrange(1, 6)
        rows = [[f"column {i}, \"{i}\"" for i in range(columns)]] + [[value(r) for _ in range(columns)] for _ in range(r.randrange(1, 20))]
        text = io.StringIO(newline="")
        csv.writer(text, quoting=quoting, lineterminator=line_end).writerows(rows)
        assert read(tmp_path / "a.csv", r.choice(["", "\ufeff"]) + text.getvalue()) == table(rows)


def test_any_csv_is_read_as_python_reads_it_or_refused(tmp_path):
    r = random.Random(2)
    accepted = 0
    for _ in range(400):
        text = "x,y\n" + "".join(r.choice(['"', '"', '""', ",", "\n", "\r\n", "a", "b", '","', '",\n', 'a,"', 'a,b\n', "c,d\n"])
                                 for _ in range(r.randrange(1, 9)))
        try:
            expected = table(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error:
            expected = None
        found = read(tmp_path / "a.csv", text)
        assert found == expected, repr(text)
        accepted += found is not None
    assert 50 < accepted < 350


def test_tsv(tmp_path):
    r = random.Random(3)
    accepted = 0
    for _ in range(200):
        columns = r.randrange(1, 4)
        rows = [[f"column {i}" for i in range(columns)]] + [["".join(c for c in value(r) if c not in "\t\n\r") for _ in range(columns)]
                                                            for _ in range(r.randrange(1, 6))]
        if r.random() < 0.2:
            r.choice(rows).append("x")
        end = r.choice(["\n", "\r\n"])
        found = read(tmp_path / "a.tsv", end.join("\t".join(row) for row in rows) + r.choice(["", end]))
        assert found == table([row for row in rows if row != [""]])
        accepted += found is not None
    assert 100 < accepted < 200


def json_value(r, depth=0):
    kind = r.randrange(9 if depth < 3 else 7)
    if kind == 7:
        return [json_value(r, depth + 1) for _ in range(r.randrange(4))]
    if kind == 8:
        return {value(r): json_value(r, depth + 1) for _ in range(r.randrange(4))}
    return [None, True, False, r.choice([0, 1, -1, 2**63, 2**64 - 1, -2**63, r.randrange(-1000, 1000)]),
            r.choice([0.0, -0.5, 1e300, 5e-324, r.random(), r.gauss(0, 1e20)]), value(r), "plain"][kind]


def json_line(r):
    record = {name: json_value(r) for name in r.sample(["id", "text", "label", "ünï", "a b"], r.randrange(1, 5))}
    return json.dumps(record, ensure_ascii=r.random() < 0.5, separators=r.choice([(", ", ": "), (",", ":")]))


def test_json_lines(tmp_path):
    r = random.Random(4)
    for _ in range(100):
        lines = [json_line(r) for _ in range(r.randrange(1, 8))]
        columns, found = read(tmp_path / "a.jsonl", r.choice(["", "\ufeff", "\n \r\n"]) + r.choice(["\n", "\r\n", "\n\n"]).join(lines))
        records = [json.loads(line) for line in lines]
        assert [name for name in columns if name in records[0]] == list(records[0])
        for ours, theirs in zip(found, records, strict=True):
            assert {name: v for name, v in ours.items() if name in theirs} == {name: v for name, v in theirs.items() if name in columns}


def refuse(*_):
    raise ValueError


def unique(pairs):
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        refuse()
    return dict(pairs)


def number(text):
    return float(text) if abs(float(text)) != float("inf") else refuse()


def test_damaged_json_is_refused_when_python_refuses_it(tmp_path):
    r = random.Random(5)
    accepted = 0
    for _ in range(500):
        line = json_line(r)
        at = r.randrange(len(line))
        line = line[:at] + r.choice(['"', "\\", "{", "}", ",", "0", "-", "e9999", "\\ud800", "\t", "NaN", "[", " ", "id", "\x7f"]) + line[at + r.randrange(2):]
        try:
            record = json.loads(line, object_pairs_hook=unique, parse_constant=refuse, parse_float=number)
            json.dumps(record, ensure_ascii=False).encode()  # a lone surrogate does not encode
            expected = isinstance(record, dict)
        except (ValueError, UnicodeEncodeError):
            expected = False
        found = read(tmp_path / "a.jsonl", line)
        assert (found is not None) == expected, line
        accepted += expected
    assert 50 < accepted < 450
