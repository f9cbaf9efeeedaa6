"""tessera validate and tessera recipes, as a user calls them."""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("TESSERA_BUILD", ROOT / "build/release")) / "tessera"


def run(*arguments, cwd=ROOT):
    return subprocess.run([PROGRAM, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=60)


def test_list_names_every_recipe():
    result = run("recipes", "list")
    assert result.returncode == 0
    shown = {line.split()[0] for line in result.stdout.splitlines()[1:]}
    assert shown == {str(p.relative_to(ROOT / "recipes").with_suffix("")) for p in ROOT.glob("recipes/**/*.yaml")}


def test_show_prints_the_file_or_what_it_resolves_to():
    path = ROOT / "recipes/bert/pretrain-large.yaml"
    assert run("recipes", "show", "bert/pretrain-large").stdout == path.read_text()
    resolved = run("recipes", "show", "bert/pretrain-large", "--resolved").stdout
    assert "  num_layers: 24\n" in resolved and "  learning_rate: 0.0001\n" in resolved and "include" not in resolved


def test_copy_takes_what_is_included_along(tmp_path):
    result = run("recipes", "copy", "bert/pretrain-large-512", tmp_path / "mine.yaml")
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.yaml", "pretrain-base.yaml", "pretrain-large.yaml"]
    assert run("validate", tmp_path / "mine.yaml").returncode == 0
    again = run("recipes", "copy", "bert/pretrain-large-512", tmp_path / "mine.yaml")
    assert again.returncode == 2 and "is there already" in again.stderr


def test_an_unknown_name_gets_the_nearest():
    result = run("recipes", "show", "bert/pretrain-mni")
    assert result.returncode == 2
    assert "did you mean 'bert/pretrain-mini'?" in result.stderr


def test_validate_spells_the_arithmetic():
    result = run("validate", "recipes/bert/pretrain-base.yaml", "--ranks", 4)
    assert result.returncode == 0, result.stderr
    assert "256 sequences = 4 ranks x micro-batch 32 x 2 accumulated; x 128 = 32,768 tokens per step" in result.stdout
    assert "900,000 steps = 230,400,000 sequences = 29,491,200,000 tokens" in result.stdout
    assert "bert, 110,106,428 parameters with a vocabulary of 30,522" in result.stdout
    assert "data/english/bert/train.h5 is not there yet" in result.stdout


@pytest.mark.parametrize("arguments, message", [
    (["recipes/bert/pretrain-mini.yaml", "--ranks", 3],
     "32 is not divisible by 3 ranks x micro-batch 16 = 48"),
    (["recipes/bert/pretrain-mini.yaml", "train.steps=ten"], "command line train.steps=ten: 'ten' is not a whole number"),
    (["recipes/bert/pretrain-mni.yaml"], "did you mean 'recipes/bert/pretrain-mini.yaml'?"),
    (["recipes/bert/pretrain-mini.yaml", "--ranks", 0], "--ranks"),
])
def test_validate_refuses(arguments, message):
    result = run("validate", *arguments)
    assert result.returncode == 2
    assert message.replace("micro-batch", "micro_batch") in result.stderr
    assert result.stdout == ""
