#!/usr/bin/env python3
"""Speed of our tokenizers beside the `tokenizers` package: the same lines, the same threads, in turns.

usage: tests/benchmarks/tokenizer_speed.py [TEXT] [--seconds 2] [--rounds 5] [--tokenizer FILE]…
Without TEXT the prose that this machine has is used (documentation, licences, Python's reference). Without --tokenizer
the vocabularies of MiniLM (WordPiece) and GPT-2 (byte-level BPE). Prints MB/s (median, lowest to highest), MB per second of
processor time, which other programs disturb less, and the ratio of each.
"""
import argparse
import glob
import os
import statistics
import subprocess
import sys
import tempfile
import time

TOOL = os.path.join(os.environ.get("TESSERA_BUILD", "build/release"), "tool_tokenizer")


def lines_of(path):
    return [line for line in open(path, encoding="utf-8", errors="replace").read().split("\n") if line]


def wheel_worker(file, text, seconds):
    """Prints, a round a line: MB/s, MB per second of processor time, tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lines = lines_of(text)
    megabytes = sum(len(line.encode()) for line in lines) / 1e6
    end = time.perf_counter() + seconds
    while True:
        wall, processor = time.perf_counter(), time.process_time()
        encodings = tokenizer.encode_batch_fast(lines, add_special_tokens=False)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(megabytes / wall, megabytes / processor, sum(len(e.ids) for e in encodings))
        if time.perf_counter() > end:
            return


def default_text(folder):
    """Some 10 MB of prose, each file once."""
    import pydoc_data.topics

    parts = list(pydoc_data.topics.topics.values())
    patterns = ["/usr/share/common-licenses/*", "/usr/share/vim/vim*/doc/*.txt", "/usr/share/perl/*/pod/*.pod", "/usr/lib/python3*/*.py"]
    for path in sorted({os.path.realpath(p) for pattern in patterns for p in glob.glob(pattern)}):
        parts.append(open(path, encoding="utf-8", errors="replace").read())
    path = os.path.join(folder, "text.txt")
    open(path, "w", encoding="utf-8").write("\n".join("\n".join(parts).split("\n")))
    return path


def default_tokenizers(folder):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../datasets"))
    import test_tokenizers_oracle as oracle

    files = []
    for name, make in (("minilm", oracle.minilm), ("gpt2", oracle.gpt2)):
        files.append(os.path.join(folder, name + ".json"))
        make().save(files[-1])
    return files


def measure(command, threads):
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
    rows = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [tuple(map(float, row.split())) for row in rows]
    return rows[1:] if len(rows) > 1 else rows  # the first round warms up


def compare(file, text, threads, arguments):
    commands = {"wheel": [sys.executable, __file__, "--worker", file, text, str(arguments.seconds)],
                "tessera": [TOOL, "bench", file, text, str(threads), str(arguments.seconds)]}
    rows = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            rows[name] += measure(command, threads)
    assert rows["wheel"][0][2] == rows["tessera"][0][2], "the two give different numbers of tokens"
    medians = {}
    for name, values in rows.items():
        wall, processor = [v[0] for v in values], [v[1] for v in values]
        medians[name] = statistics.median(wall), statistics.median(processor)
        print(f"  {name:8} {medians[name][0]:8.1f} MB/s ({min(wall):.1f} to {max(wall):.1f}), {medians[name][1]:8.1f} MB per processor second")
    print(f"  ratio    {medians['tessera'][0] / medians['wheel'][0]:8.1f}x {'':20} {medians['tessera'][1] / medians['wheel'][1]:8.1f}x")


def main():
    if "--worker" in sys.argv:
        wheel_worker(sys.argv[2], sys.argv[3], float(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokenizer", action="append")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = arguments.text or default_text(folder)
        for file in arguments.tokenizer or default_tokenizers(folder):
            for threads in sorted({1, os.cpu_count()}):
                print(f"{os.path.basename(file)}, {os.path.getsize(text) / 1e6:.1f} MB, {threads} thread{'s' if threads > 1 else ''}:")
                compare(file, text, threads, arguments)


if __name__ == "__main__":
    main()
