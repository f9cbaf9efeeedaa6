"""Files in NVIDIA's layout, made by an independent script, train as they are: both variants alike, on any number of ranks."""
import subprocess
import sys

import pytest
import runs

ROWS = 48


def make(folder, variant):
    path = folder / f"{variant}.hdf5"
    script = runs.ROOT / "tests/datasets/make_nvidia_file.py"
    subprocess.run([sys.executable, script, path, folder / "expected.json", variant, str(ROWS), "32", "5", "3"], check=True)
    return path


def train(folder, data, ranks):
    recipe = runs.recipe(folder, model={"vocab_size": 30522}, data={"train": str(data), "validation": str(data),
                                                                           "tokenizer": str(runs.data("wordpiece") / "tokenizer.json")},
                         optimizer={"learning_rate": 1e-2}, train={"steps": 60, "micro_batch": 8})
    runs.must(runs.tessera("train", recipe, ranks=ranks))
    return runs.metrics(folder / "run"), runs.metrics(folder / "run", "mlm_loss")


@pytest.mark.parametrize("variant", ["fixed", "variable"])
def test_trains(variant, tmp_path):
    data = make(tmp_path, variant)
    alone, words = train(tmp_path / "alone", data, 1)
    assert words[60] < words[1] - 3  # 20 times over the same masks: they are learnt by heart
    assert train(tmp_path / "two", data, 2)[0] == pytest.approx(alone, rel=1e-5)


def test_both_variants_are_the_same_data(tmp_path):
    assert train(tmp_path / "a", make(tmp_path, "fixed"), 1) == train(tmp_path / "b", make(tmp_path, "variable"), 1)
