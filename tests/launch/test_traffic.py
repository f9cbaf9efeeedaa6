"""The bytes that ranks really send, as Open MPI counts them, are those that tessera validate tells of their stage: to the
byte for GPT; BERT's predictions per sample are drawn at random. So are those that log.profile tells of the pipeline."""
import json
import re
import subprocess

import pytest
import runs
from tiers import slow_but

MODEL = {"num_layers": 4, "hidden_size": 64, "num_heads": 4, "feed_forward_size": 256, "max_positions": 64}

INTERLEAVED = {"pipeline": 2, "pipeline_chunks": 2, "pipeline_schedule": "interleaved"}

# (family, ranks, parallel, train)
LAYOUTS = {
    "replicate 4": ("gpt", 4, {}, {}),
    "zero 1": ("gpt", 2, {"shard": 2, "zero": 1}, {}),
    "zero 2": ("gpt", 2, {"shard": 2, "zero": 2}, {}),
    "zero 3 with rows that 3 ranks do not divide": ("gpt", 3, {"shard": 3}, {"global_batch": 12}),
    "replicate 2 x zero 3, bf16": ("gpt", 4, {"shard": 2}, {"precision": "bf16"}),
    "tensor 4, recomputed": ("gpt", 4, {"tensor": 4}, {"recompute": "blocks"}),
    "tensor 2 x zero 2": ("gpt", 4, {"tensor": 2, "shard": 2, "zero": 2}, {}),
    "tensor 2": ("bert", 2, {"tensor": 2}, {}),
    "1f1b 2": ("gpt", 2, {"pipeline": 2}, {}),
    "1f1b 4, bf16": ("gpt", 4, {"pipeline": 4}, {"precision": "bf16"}),
    "interleaved": ("gpt", 2, INTERLEAVED, {}),
    "interleaved x replicate 2, recomputed": ("gpt", 4, INTERLEAVED, {"recompute": "blocks"}),
    "1f1b 2 x zero 3": ("gpt", 4, {"pipeline": 2, "shard": 2}, {}),
    "interleaved x zero 3": ("gpt", 4, {**INTERLEAVED, "shard": 2}, {}),
    "1f1b 2 x tensor 2": ("gpt", 4, {"pipeline": 2, "tensor": 2}, {}),
    "interleaved x tensor 2": ("gpt", 4, {**INTERLEAVED, "tensor": 2}, {}),
    "1f1b 2, bert": ("bert", 2, {"pipeline": 2}, {}),
}


def sent(recipe, ranks, steps):
    """Bytes that each rank sends in a run, by Open MPI's monitoring of messages."""
    folder = recipe.parent / f"steps-{steps}"
    folder.mkdir()
    monitor = ["--mca", "pml_monitoring_enable", "1", "--mca", "pml_monitoring_enable_output", "3",
               "--mca", "pml_monitoring_filename", folder / "sent"]
    command = [*runs.mpirun(ranks)[:-2], *monitor, "-n", str(ranks), runs.PROGRAM, "train", recipe, f"train.steps={steps}",
               f"run.folder={folder}/run"]
    runs.must(subprocess.run([str(word) for word in command], capture_output=True, text=True, env=runs.environment(), timeout=120))
    bytes_sent = [0] * ranks
    for file in folder.glob("sent*.prof"):
        for line in file.read_text().splitlines():
            if found := re.match(r"[EI]\s+(\d+)\s+\d+\s+(\d+) bytes", line):
                bytes_sent[int(found[1])] += int(found[2])
    return bytes_sent


@pytest.mark.skipif("pml: monitoring" not in subprocess.run(["ompi_info"], capture_output=True, text=True).stdout,
                    reason="this MPI does not count messages")
@pytest.mark.parametrize("name", slow_but(["replicate 2 x zero 3, bf16", "tensor 2", "interleaved"], LAYOUTS))
def test_bytes(name, tmp_path):
    family, ranks, parallel, train = LAYOUTS[name]
    recipe = runs.recipe(tmp_path, family, model=MODEL, data={"sequence_length": 64, "short_sequence_probability": 0},
                         train={"global_batch": 8, "micro_batch": 2, "device": "cpu", **train}, parallel=parallel,
                         log={"every": 100, "profile": True})
    plan = json.loads(runs.must(runs.tessera("validate", recipe, "--ranks", ranks, "--json")).stdout)
    stages = plan["stage_traffic"]
    told = [sum(axis["sent"] for axis in stages[rank * len(stages) // ranks].values()) for rank in range(ranks)]
    first, second = sent(recipe, ranks, 3), sent(recipe, ranks, 7)  # what a run sends once cancels out
    measured = [(after - before) / 4 for before, after in zip(first, second)]
    tolerance = 0.03 if family == "bert" else 1e-4 if ranks == 3 else 1e-9
    assert measured == pytest.approx(told, rel=tolerance)
    if len(stages) > 1:
        assert runs.metrics(tmp_path / "steps-3/run", "sent_bytes_pipeline") == {3: 3 * stages[0]["pipeline"]["sent"]}
