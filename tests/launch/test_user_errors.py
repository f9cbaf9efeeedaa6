"""Every user mistake ends with one clear message, exit code 2, no stack trace and no hang, on one rank and on two."""
import json
import os
import pathlib
import shutil
import subprocess

import h5py
import pytest
import runs
from tiers import slow_but

ERRORS = {}


def error(*expected):
    """Registers a case: a function of (folder) that sets the mistake up and returns the program's arguments. All
    `expected` texts must be in the message."""
    def register(function):
        assert function.__name__ not in ERRORS
        ERRORS[function.__name__] = function, expected
        return function
    return register


def override(name, text, *expected, family="bert"):
    """A case that is a valid recipe and one override."""
    ERRORS[name] = (lambda folder: ["train", runs.recipe(folder, family), text]), expected


def recipe_text(name, change, *expected, family="bert"):
    """A case that is a valid recipe whose text was changed."""
    def build(folder):
        path = runs.recipe(folder, family)
        text = change(path.read_text())
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["train", path]
    ERRORS[name] = build, expected


# --- recipes ---------------------------------------------------------------------------------------------------------
override("unknown_key", "train.step=10", "train.step", "did you mean 'steps'")
override("unknown_section", "trian.steps=10", "trian", "did you mean 'train'")
override("wrong_type", "train.steps=abc", "train.steps", "abc")
override("fraction_for_whole", "train.steps=1.5", "train.steps", "1.5")
override("negative", "train.steps=-1", "train.steps", "-1")
override("out_of_range", "model.dropout=1.5", "model.dropout", "1.5")
override("unknown_family", "model.family=brt", "brt", "did you mean 'bert'")
override("unknown_objective", "objective.name=mlm_nps", "mlm_nps", "did you mean 'mlm_nsp'")
override("unknown_optimizer", "optimizer.name=adam", "adam", "did you mean 'adamw'")
override("unknown_schedule", "schedule.name=cosin", "cosin", "did you mean 'cosine'")
override("unknown_precision", "train.precision=fp8", "train.precision", "bf16")
override("heads_do_not_divide", "model.num_heads=3", "num_heads", "32")
override("sequence_beyond_positions", "data.sequence_length=64", "sequence_length", "max_positions")
override("batch_not_divisible", "train.micro_batch=5", "micro_batch", "16")
override("octal", "train.steps=010", "train.steps", "010")
override("empty_override", "train.steps", "train.steps", "section.key=value")
override("override_without_value", "train.steps=", "train.steps")
override("heads_by_tensor", "parallel.tensor=3", "parallel.tensor", "4 heads", "1, 2, 4")
override("bad_warm_up", "schedule.warm_up=150%", "warm_up")
override("bad_resume", "run.resume=sometimes", "sometimes")
override("causal_lm_on_bert", "objective.name=causal_lm", "causal_lm", "bert")
override("mlm_on_gpt", "objective.name=mlm", "mlm", "gpt", family="gpt")
override("clip_negative", "train.clip=-1", "train.clip")
override("zero_batch", "train.global_batch=0", "train.global_batch")
recipe_text("syntax", lambda text: text + "\n  : [", "recipe.yaml:")
recipe_text("duplicate_key", lambda text: text + "\nrun: {folder: x}\n", "recipe.yaml:", "run")
recipe_text("tab", lambda text: text.replace("  seed", "\tseed"), "recipe.yaml:")
recipe_text("empty_recipe", lambda text: "", "recipe.yaml")
recipe_text("root_is_a_list", lambda text: "- a\n- b\n", "recipe.yaml")
recipe_text("scalar_for_section", lambda text: text.replace("schedule:\n  name: linear\n  warm_up: 2\n", "schedule: linear\n"), "schedule")
recipe_text("missing_section", lambda text: text.replace("optimizer:", "optimiser:"), "optimizer")
recipe_text("include_missing", lambda text: "include: other.yaml\n" + text, "other.yaml")
recipe_text("include_itself", lambda text: "include: recipe.yaml\n" + text, "recipe.yaml")
recipe_text("not_text", lambda text: bytes(range(256)) * 4, "recipe.yaml")
recipe_text("many_at_once", lambda text: text.replace("seed: 7", "sed: 7").replace("steps: 20", "steps: many"), "seed", "steps")


@error("no-such.yaml")
def recipe_missing(folder):
    return ["train", folder / "no-such.yaml"]


@error("folder")
def recipe_is_a_folder(folder):
    return ["train", folder]


# --- data ------------------------------------------------------------------------------------------------------------
override("data_missing", "data.train=nowhere.h5", "nowhere.h5")
override("data_is_a_folder_of_nothing", "data.train=tests/launch", "tests/launch")
override("data_is_text", "data.train=README.md", "README.md")
override("validation_missing", "data.validation=nowhere.h5", "nowhere.h5")
override("tokenizer_missing", "data.tokenizer=nowhere.json", "nowhere.json")
override("vocabulary_too_small", "model.vocab_size=10", "vocab_size", "600")
override("sequence_longer_than_data", "data.sequence_length=1000000", "sequence_length", family="gpt")


def damaged_data(name, damage, *expected):
    def build(folder):
        source = runs.data("wordpiece") / "train.h5"
        target = folder / "train.h5"
        shutil.copy(source, target)
        damage(target)
        return ["train", runs.recipe(folder), f"data.train={target}"]
    ERRORS[name] = build, ("train.h5", *expected)


def cut(path, share):
    os.truncate(path, int(path.stat().st_size * share))


def edit(change):
    def damage(path):
        with h5py.File(path, "r+") as file:
            change(file)
    return damage


damaged_data("data_truncated_to_half", lambda path: cut(path, 0.5))
damaged_data("data_truncated_to_nothing", lambda path: cut(path, 0))
damaged_data("data_without_its_last_byte", lambda path: cut(path, 1 - 1e-6))
damaged_data("data_without_tokens", edit(lambda file: file.__delitem__("tokens")), "tokens")
damaged_data("data_without_documents", edit(lambda file: file.__delitem__("documents")), "documents")
damaged_data("data_of_real_numbers", edit(lambda file: (file.__delitem__("tokens"), file.create_dataset("tokens", data=[0.5] * 100))), "tokens")


# --- prepare ---------------------------------------------------------------------------------------------------------
def prepare(name, *expected, files=None, arguments=()):
    def build(folder):
        for file, content in (files or {"text.txt": b"Some text. More text.\n\nAnother document.\n"}).items():
            (folder / file).write_bytes(content)
        return ["prepare", *[str(a).replace("@", str(folder)) for a in arguments]]
    ERRORS["prepare_" + name] = build, expected


TRAIN = ["--train-tokenizer", "wordpiece", "--vocab-size", "300"]
prepare("input_missing", "nothing.txt", arguments=["@/nothing.txt", "--output", "@/out", *TRAIN])
prepare("no_tokenizer", "--tokenizer", arguments=["@/text.txt", "--output", "@/out"])
prepare("unknown_kind", "wordpeace", "wordpiece", arguments=["@/text.txt", "--output", "@/out", "--train-tokenizer", "wordpeace"])
prepare("bad_tokenizer", "t.json", files={"text.txt": b"a", "t.json": b"{"}, arguments=["@/text.txt", "--output", "@/out", "--tokenizer", "@/t.json"])
prepare("foreign_tokenizer", "t.json", "only WordPiece and BPE are supported", files={"text.txt": b"a", "t.json": b'{"model": {"type": "Unigram", "vocab": []}}'},
        arguments=["@/text.txt", "--output", "@/out", "--tokenizer", "@/t.json"])
prepare("empty_text", "no text", files={"text.txt": b""}, arguments=["@/text.txt", "--output", "@/out", *TRAIN])
prepare("broken_gzip", "text.gz", files={"text.gz": b"\x1f\x8b\x08\x00garbage"}, arguments=["@/text.gz", "--output", "@/out", *TRAIN])
prepare("broken_json_line", "text.jsonl", files={"text.jsonl": b'{"text": "a"}\n{"text": \n'}, arguments=["@/text.jsonl", "--output", "@/out", *TRAIN])
prepare("missing_field", "text.jsonl", "text", files={"text.jsonl": b'{"body": "a"}\n'}, arguments=["@/text.jsonl", "--output", "@/out", *TRAIN])
prepare("bad_share", "validation", "1.5", arguments=["@/text.txt", "--output", "@/out", "--validation", "1.5", *TRAIN])
prepare("output_below_a_file", "text.txt", arguments=["@/text.txt", "--output", "@/text.txt/out", *TRAIN])


# --- checkpoints -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    runs.must(runs.tessera("train", runs.recipe(folder, train={"steps": 4}, checkpoint={"every": 2})))
    return folder / "run"


TRAINED = []  # filled by test_message, which has the fixture


def resumed(name, *expected, damage=lambda step: None, changes=(), steps=6):
    def build(folder):
        shutil.copytree(TRAINED[0], folder / "run")
        shutil.rmtree(folder / "run/checkpoints/step-00000002")
        damage(folder / "run/checkpoints/step-00000004")
        return ["train", runs.recipe(folder, train={"steps": steps}), *changes]
    ERRORS["resume_" + name] = build, expected


def flip(path, position=0.5):
    with open(path, "r+b") as file:
        file.seek(int(path.stat().st_size * position))
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x10]))


def shard(step):
    return sorted(step.glob("shard-*.h5"))[0]


resumed("other_model", "hidden_size", changes=["model.hidden_size=64"])
resumed("other_objective", "objective", changes=["objective.name=mlm"])
resumed("other_batch", "global_batch", changes=["train.global_batch=32"])
resumed("other_seed", "seed", changes=["run.seed=8"])
resumed("never", "checkpoint", changes=["run.resume=never"])
resumed("bit_flipped", "shard", damage=lambda step: flip(shard(step)))
resumed("shard_missing", "shard", damage=lambda step: shard(step).unlink())
resumed("shard_truncated", "shard", damage=lambda step: cut(shard(step), 0.9))
resumed("index_truncated", "checkpoint.h5", damage=lambda step: cut(step / "checkpoint.h5", 0.5))
resumed("index_empty", "checkpoint.h5", damage=lambda step: cut(step / "checkpoint.h5", 0))


@error("no-such-run")
def resume_from_nowhere(folder):
    return ["train", runs.recipe(folder), "run.resume=no-such-run"]


@error("checkpoint")
def resume_from_an_empty_folder(folder):
    (folder / "empty").mkdir()
    return ["train", runs.recipe(folder), f"run.resume={folder}/empty"]


@error("nothing-here")
def inspect_nothing(folder):
    return ["inspect", folder / "nothing-here"]


@error("nothing-here")
def generate_from_nothing(folder):
    return ["generate", folder / "nothing-here", "--prompt", "x"]


@error("--device: unknown device 'banana'", "valid: auto, cpu, cuda, cuda:N")
def generate_on_a_banana(folder):
    return ["generate", folder / "nothing-here", "--prompt", "x", "--device", "banana"]


@error("--device: unknown device 'cuda:x'", "did you mean 'cuda:N'")
def evaluate_on_a_gpu_without_number(folder):
    return ["evaluate", folder / "nothing-here", "--device", "cuda:x"]


@error("no GPU can be used: ")
def generate_without_a_gpu(folder):
    return ["generate", folder / "nothing-here", "--prompt", "x", "--device", "cuda"]


@error("no GPU can be used: ")
def evaluate_without_a_gpu(folder):
    return ["evaluate", folder / "nothing-here", "--device", "cuda:1"]


# --- surroundings ----------------------------------------------------------------------------------------------------
@error("run.folder", "below-a-file")
def run_folder_below_a_file(folder):
    (folder / "below-a-file").write_text("")
    return ["train", runs.recipe(folder), f"run.folder={folder}/below-a-file/run"]


@error("learning_rate", "finite")
def not_a_number(folder):
    return ["train", runs.recipe(folder, optimizer={"name": "sgd", "learning_rate": 1e30}, train={"clip": 0})]


@error("unknown verb 'trian'", "did you mean 'train'")
def unknown_verb(folder):
    return ["trian", "x.yaml"]


@error("--frobnicate")
def unknown_option(folder):
    return ["train", "--frobnicate", runs.recipe(folder)]


@error("recipe")
def no_arguments(folder):
    return ["train"]


NOT_ON_TWO_RANKS = {"unknown_verb", "no_arguments", "unknown_option", "inspect_nothing", "generate_from_nothing", "generate_on_a_banana",
                    "evaluate_on_a_gpu_without_number", "generate_without_a_gpu", "evaluate_without_a_gpu"}
WITHOUT_A_GPU = {"CUDA_VISIBLE_DEVICES": ""}  # also on machines that have one
MARKS_OF_A_CRASH = ["terminate called", "Exception raised from", "Segmentation", "Aborted", "frame #", "what():"]


CASES = [(name, ranks) for name in ERRORS for ranks in (1, 2) if ranks == 1 or not (name in NOT_ON_TWO_RANKS or name.startswith("prepare_"))]
FAST = [case for case in CASES if case[1] == 1] + [case for case in CASES if case[1] == 2][::10]  # mpirun takes a second


@pytest.mark.parametrize("name,ranks", slow_but(FAST, CASES))
def test_message(name, ranks, tmp_path, trained):
    TRAINED[:] = [trained]
    build, expected = ERRORS[name]
    process = runs.tessera(*build(tmp_path), ranks=ranks, timeout=60, env=WITHOUT_A_GPU)
    message = "\n".join(line for line in process.stderr.splitlines() if "mpirun" not in line)
    assert process.returncode == 2, f"exit code {process.returncode}: {process.stdout[-1000:]}{message[-3000:]}"
    for text in expected:
        assert text in message, message
    for mark in MARKS_OF_A_CRASH:
        assert mark not in message, message
    assert message.count("tessera: ") == 1, message


def test_there_are_at_least_60():
    assert len(ERRORS) >= 60


@pytest.mark.parametrize("ranks", slow_but([1], [1, 2]))
@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_full_disk_loses_nothing(ranks, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk]).returncode:
        pytest.skip("mount is not allowed here")
    try:
        path = runs.recipe(tmp_path, run={"folder": str(disk / "run")}, train={"steps": 400}, checkpoint={"every": 2, "keep": 0})
        process = runs.tessera("train", path, ranks=ranks)
        assert process.returncode == 2, process.stderr
        assert "No space left" in process.stderr and str(disk) in process.stderr
        assert process.stderr.count("tessera: ") == 1
        whole = sorted(p.name for p in (disk / "run/checkpoints").iterdir() if p.name.startswith("step-"))
        assert whole
        runs.must(runs.tessera("inspect", disk / "run/checkpoints" / whole[-1], "--verify"))
    finally:
        subprocess.run(["umount", "-l", disk])
