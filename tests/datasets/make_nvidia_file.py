"""Writes a file in the layout of NVIDIA's BERT pre-training data, and what is in it as JSON, from numpy's random numbers.

usage: make_nvidia_file.py OUTPUT.hdf5 EXPECTED.json fixed|variable ROWS SEQUENCE PREDICTIONS SEED
"""
import json
import sys

import h5py
import numpy as np

CLS, SEP, MASK, VOCABULARY = 101, 102, 103, 30522


def make_row(random, sequence, predictions):
    length = int(random.integers(8, sequence + 1))
    middle = int(random.integers(3, length - 3))
    ids = random.integers(1000, VOCABULARY, length)
    ids[[0, middle, length - 1]] = CLS, SEP, SEP
    candidates = [i for i in range(length) if i not in (0, middle, length - 1)]
    count = min(predictions, max(1, round(0.15 * length)), len(candidates))
    positions = sorted(int(i) for i in random.choice(candidates, count, replace=False))
    labels = [int(ids[i]) for i in positions]
    ids[positions] = MASK
    segments = [0] * (middle + 1) + [1] * (length - middle - 1)
    return {"tokens": ids.tolist(), "segments": segments, "positions": positions, "labels": labels, "next": int(random.integers(2))}


def write_fixed(file, rows, sequence, predictions):
    def padded(key, width):
        return np.array([row[key] + [0] * (width - len(row[key])) for row in rows])

    arrays = {"input_ids": (padded("tokens", sequence), "i4"), "segment_ids": (padded("segments", sequence), "i1"),
              "input_mask": (np.array([[1] * len(r["tokens"]) + [0] * (sequence - len(r["tokens"])) for r in rows]), "i1"),
              "masked_lm_positions": (padded("positions", predictions), "i4"),
              "masked_lm_ids": (padded("labels", predictions), "i4"),
              "next_sentence_labels": (np.array([row["next"] for row in rows]), "i1")}
    for name, (data, kind) in arrays.items():
        file.create_dataset(name, data=data, dtype=kind, compression="gzip")


def write_variable(file, rows):
    keys = {"input_ids": ("tokens", "i2"), "segment_ids": ("segments", "i1"), "masked_lm_positions": ("positions", "i2"),
            "masked_lm_ids": ("labels", "i2")}
    for name, (key, kind) in keys.items():
        data = file.create_dataset(name, (len(rows),), dtype=h5py.vlen_dtype(np.dtype(kind)))
        for i, row in enumerate(rows):
            data[i] = np.array(row[key], kind)
    file.create_dataset("next_sentence_labels", data=np.array([row["next"] for row in rows]), dtype="i1")


def main():
    output, expected, variant = sys.argv[1:4]
    rows, sequence, predictions, seed = map(int, sys.argv[4:])
    random = np.random.default_rng(seed)
    examples = [make_row(random, sequence, predictions) for _ in range(rows)]
    with h5py.File(output, "w") as file:
        if variant == "fixed":
            write_fixed(file, examples, sequence, predictions)
        else:
            write_variable(file, examples)
    with open(expected, "w") as file:
        json.dump(examples, file)


if __name__ == "__main__":
    main()
