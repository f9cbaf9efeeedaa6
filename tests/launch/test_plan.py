"""What a layout costs, as a user asks: tessera validate --ranks --hosts, --suggest, --machine, and tessera doctor."""
import json
import re
import shlex
import time

import pytest
import runs

GPT = "recipes/gpt/pretrain-1.5b.yaml"
LARGE = ["model.num_layers=96", "model.hidden_size=12288", "model.num_heads=96", "train.global_batch=1536"]  # GPT-3's size


def validate(*arguments, code=0):
    result = runs.tessera("validate", *arguments, timeout=60)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout if code == 0 else result.stderr


def test_a_layout_of_4096_ranks_is_quick():
    start = time.monotonic()
    text = validate(GPT, "--ranks", 4096, "--hosts", 512, *LARGE, "parallel.tensor=8", "parallel.pipeline=16", "parallel.shard=2",
                    "train.micro_batch=1", "train.global_batch=2048")
    assert time.monotonic() - start < 5
    for title in ("ranks", "pipeline", "memory", "traffic", "time", "figures"):
        assert re.search(f"^{title}  ", text, re.M), text
    assert "4,096 on 512 hosts of 8 = pipeline 16 x replicate 16 x shard 2 x context 1 x tensor 8" in text
    assert "between hosts" in text and "published" in text


def test_suggestions_for_4096_ranks_are_quick_and_valid():
    start = time.monotonic()
    text = validate(GPT, "--ranks", 4096, "--hosts", 512, "--suggest", "--memory", 80, *LARGE)
    assert time.monotonic() - start < 5
    lines = text.splitlines()
    overrides = [lines[i + 1] for i, line in enumerate(lines) if " per step, " in line]
    assert len(overrides) >= 5
    for line in overrides:
        again = validate(GPT, "--ranks", 4096, "--hosts", 512, *LARGE, *shlex.split(line))
        assert "is valid" in again


def test_one_rank_sends_nothing():
    text = validate("recipes/gpt/pretrain-mini.yaml")
    assert "traffic" not in text and re.search(r"^memory .* per rank", text, re.M)


def test_json_has_the_same_figures():
    plan = json.loads(validate(GPT, "--ranks", 64, "--hosts", 8, "--json", "parallel.shard=8"))
    memory, seconds = plan["memory"], plan["time"]
    assert memory["stages"] == [memory["total"]]
    assert memory["total"] <= sum(value for key, value in memory.items() if key not in ("stage", "parameters", "total", "stages", "block_activations"))
    assert seconds["total"] == pytest.approx(sum(value for key, value in seconds.items() if key != "total"))
    # 4 micro-steps: 48 blocks gathered twice but for the last, 49 units reduced; the others gathered once.
    assert plan["traffic"]["shard"]["messages"] == 4 * 95 + 1 + 4 * 49


@pytest.mark.parametrize("parallel", [{}, {"pipeline": 2}, {"shard": 2}])
def test_a_run_starts_with_its_plan(parallel, tmp_path):
    recipe = runs.recipe(tmp_path, "gpt", model={"hidden_size": 256, "feed_forward_size": 1024},
                         train={"steps": 1, "device": "cpu"}, parallel=parallel)
    shown = runs.must(runs.tessera("train", recipe, ranks=2)).stdout
    plan = json.loads(validate(recipe, "--ranks", 2, "--json"))
    told = dict(re.findall(r"^(\w+)  +(.*)$", validate(recipe, "--ranks", 2), re.M))
    assert re.search(r"^plan\n  memory +(.*)$", shown, re.M)[1] == told["memory"]
    bubble = re.search(r"^  pipeline +(.*)$", shown, re.M)
    assert (bubble and bubble[1]) == told.get("pipeline")
    messages = re.search(r"^  messages +(.*) per rank and step", shown, re.M)[1].split(", ")
    assert [item.split()[0] for item in messages] == list(plan["traffic"])
    parts = re.search(r"parameters (.*?), gradients .*, optimizer (.*), activations", shown)
    told_bytes = [plan["memory"]["weights"] + plan["memory"]["gathered"], plan["memory"]["optimizer"]]
    assert parts.groups() == tuple(f"{told / 1e6:.1f} MB" for told in told_bytes)


@pytest.mark.parametrize("arguments, message", [
    ([GPT, "--ranks", 10, "--hosts", 4], "--hosts: 4 hosts do not share 10 ranks evenly; valid: 8 or 12 ranks, or 2 hosts"),
    ([GPT, "--ranks", 2, "--hosts", 4], "valid: 4 ranks, or 2 hosts"),
    ([GPT, "--hosts", 0], "--hosts"),
    ([GPT, "--ranks", 8, "--suggest", "--memory", 0.5], "layouts fits in"),
    ([GPT, "--ranks", 1000, "--suggest", "train.global_batch=1", "train.micro_batch=1"], "cannot be divided among 1000 ranks"),
    ([GPT, "--machine", "no-such.json"], "no-such.json: No such file"),
    ([GPT, "--ranks", 6, "parallel.tensor=5"], "which does not divide 6 ranks; valid: 5 or 10 ranks, or parallel.tensor 1"),
])
def test_refusals(arguments, message):
    assert message in validate(*arguments, code=2)


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    path = tmp_path_factory.mktemp("doctor") / "machine.json"
    result = runs.must(runs.tessera("doctor", "--cpu", "--save", path, ranks=2))
    for title in ("tessera", "processor", "memory", "GPUs", "ranks", "products", "copies", "in a host", "to others", "overlap", "saved"):
        assert re.search(f"^{title}  ", result.stdout, re.M), result.stdout
    return path


def test_doctor_measures_and_validate_reads(figures):
    saved = json.loads(figures.read_text())
    assert saved["flops_fp32"] > 1e9 and saved["inside_host"]["bytes_per_second"] > 1e6
    text = validate("recipes/gpt/pretrain-mini.yaml", "--ranks", 2, "--machine", figures)
    assert "measured by tessera doctor on 2 ranks" in text
    slower = figures.with_name("slower.json")
    slower.write_text(json.dumps({**saved, "flops_fp32": saved["flops_fp32"] / 10}))
    plans = [json.loads(validate("recipes/gpt/pretrain-mini.yaml", "--json", "--machine", path)) for path in (figures, slower)]
    assert plans[1]["time"]["compute"] > 5 * plans[0]["time"]["compute"]


@pytest.mark.parametrize("change, message", [
    (lambda saved: saved.pop("flops_fp32"), "flops_fp32: missing; valid: a number above 0"),
    (lambda saved: saved.update(memory_bytes=-1), "memory_bytes: -1 is not a number above 0"),
    (lambda saved: saved.update(flops_fp23=1), "unknown key 'flops_fp23'; valid: source"),
    (lambda saved: saved["inside_host"].pop("latency_seconds"), "inside_host: latency_seconds: missing"),
    (lambda saved: saved.update(between_hosts=3), "between_hosts: missing; valid: {latency_seconds, bytes_per_second}"),
])
def test_a_file_of_figures_is_checked(figures, change, message, tmp_path):
    saved = json.loads(figures.read_text())
    change(saved)
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(saved))
    assert message in validate(GPT, "--machine", path, code=2)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "machine.json"
    path.write_text("[1]")
    assert "is not a JSON object" in validate(GPT, "--machine", path, code=2)
    assert "cannot be written" in runs.tessera("doctor", "--cpu", "--save", tmp_path / "no/such/folder.json").stderr
