"""TensorBoard itself reads our events, and a resumed run's curves have every step once."""
import json
import os
import subprocess

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TOOL = os.path.join(os.environ.get("TESSERA_BUILD", "build/release"), "tool_metrics")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    subprocess.run([TOOL, path], check=True)
    return path


def test_lines(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 51))
    assert [line["loss"] for line in lines] == [s if s <= 20 else 2000 + s for s in range(1, 51)]
    assert lines[6]["validation/loss"] is None and lines[7]["validation/loss"] == 0.1


def test_tensorboard_scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "validation/loss"]
    loss = events.Scalars("loss")
    assert [e.step for e in loss] == list(range(1, 51))
    assert [e.value for e in loss] == [s if s <= 20 else 2000 + s for s in range(1, 51)]


def test_tensorboard_text(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    assert events.Tags()["tensors"] == ["recipe"]
    tensor = events.Tensors("recipe")[0]
    assert tensor.tensor_proto.string_val[0].decode() == "    model: {family: bert}\n    # ünïcode"
    assert events.SummaryMetadata("recipe").plugin_data.plugin_name == "text"
