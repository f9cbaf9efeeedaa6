"""Short runs: the GPU's curves against the CPU's, and everything that must not change a curve."""
import re

from checks import curves
from checks.curves import plain, recipe, same, train
from runner import Check, Failed, Skipped

GPU_TOLERANCE = 1e-4  # fp32: other orders of summation
ORDER_TOLERANCE = 1e-5  # the same arithmetic in another order
BITS_TOLERANCE = 2e-3  # weights and activations of 16 bits


def on_cpu(kit, name, family, **changes):
    return train(kit, f"{name}-cpu", family, **{**changes, "train": {**changes.get("train", {}), "device": "cpu"}})


def cpu_against_cuda(family, **changes):
    def run(kit):
        name = kit.name.replace("/", "-")
        return same(kit, train(kit, name, family, **changes), on_cpu(kit, name, family, **changes), GPU_TOLERANCE, "CUDA against CPU")

    return run


def padded(length):
    """Pairs of sentences are shorter than the sequence; where memory or kernels go wrong, losses in 16 bits are not finite."""
    def run(kit):
        changes = {"data": {"sequence_length": length}}
        name = kit.name.replace("/", "-")
        train(kit, f"{name}-bf16", train={"precision": "bf16"}, **changes)
        ours = train(kit, name, **changes)
        if not kit.has_gpu:
            return "finite in fp32 and bf16; no GPU to compare"
        return same(kit, ours, on_cpu(kit, name, "bert", **changes), GPU_TOLERANCE, "finite in bf16; fp32, CUDA against CPU")

    return run


def sixteen_bits(precision):
    def run(kit):
        ours = train(kit, precision, train={"precision": precision})
        return same(kit, ours, plain(kit, "bert"), BITS_TOLERANCE, f"{precision} against fp32 on {kit.device}")

    return run


def changes_nothing(tolerance, *families, **changes):
    def run(kit):
        name = kit.name.replace("/", "-")
        return "; ".join(same(kit, train(kit, f"{name}-{family}", family, **changes), plain(kit, family), tolerance,
                              f"{family} on {kit.device}") for family in families)

    return run


def lora(kit):
    start = train(kit, "lora-start", "gpt", checkpoint={"every": curves.STEPS}, optimizer={"learning_rate": 1e-2})
    changes = {"adapt": {"method": "lora", "rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["query_key_value", "expand", "contract"]},
               "whole_model": {"from": str(start.parent / "run"), "dropout": 0.1}, "optimizer": {"learning_rate": 1e-2}}
    ours = train(kit, "lora", "gpt", **changes)
    if kit.has_gpu:
        return same(kit, ours, on_cpu(kit, "lora", "gpt", **changes), GPU_TOLERANCE, "CUDA against CPU")
    whole = train(kit, "lora-whole", "gpt", train={"micro_batch": 8}, **changes)
    return same(kit, ours, whole, ORDER_TOLERANCE, "no GPU to compare; accumulated against whole batches")


def resume(kit):
    """Killed in the middle, bit for bit: the curve, and the exported weights."""
    changes = {"train": {"steps": 150, "ema": 0.9}, "checkpoint": {"every": 10, "keep": 2}}
    whole = train(kit, "resume-whole", "gpt", **changes)
    path = recipe(kit, "resume-killed", "gpt", **changes)
    metrics = path.parent / "run/metrics.jsonl"
    killed = kit.tessera("train", path, ok=None, kill_when=lambda: metrics.exists() and metrics.read_text().count("\n") > 50)
    if killed.code != -9:
        raise Failed(f"the run ended with {killed.code} before it could be killed")
    kit.tessera("train", path)
    if curves.curve(path) != curves.curve(whole):
        raise Failed(f"losses differ by {curves.distance(path, whole):.2g} after resuming")
    for each in (whole, path):
        kit.tessera("export", each.parent / "run", each.parent / "exported")
    weights = [(each.parent / "exported/model.safetensors").read_bytes() for each in (whole, path)]
    if weights[0] != weights[1]:
        raise Failed("the curve is the same, the weights are not")
    return f"150 losses and {len(weights[0])} bytes of weights are the same on {kit.device}"


def deterministic(kit):
    """On, two runs in 16 bits are the same to the bit; off, the run must at least work."""
    path = recipe(kit, "deterministic-known")
    if kit.tessera("validate", path, "train.deterministic=true", ok=None).code:
        raise Skipped("this build has no train.deterministic")
    changes = {"train": {"precision": "bf16", "deterministic": True}}
    first, second = (train(kit, f"deterministic-{i}", **changes) for i in (1, 2))
    if curves.curve(first) != curves.curve(second):
        raise Failed(f"two runs differ by {curves.distance(first, second):.2g}")
    other = train(kit, "deterministic-off", train={"precision": "bf16", "deterministic": False})
    return same(kit, other, first, BITS_TOLERANCE, "two runs are the same; without it")


def generate(kit):
    """Greedily, the GPU's text is the CPU's; alone, in a batch, and evaluated."""
    if "--device" not in kit.tessera("generate", "--help").output:
        raise Skipped("this build's generate has no --device")
    run = train(kit, "generate", "gpt", checkpoint={"every": 60}, train={"steps": 60}, data={"sequence_length": 128}).parent / "run"
    prompts = [word for text in ("The program", "A run", "Every tensor of") for word in ("--prompt", text)]

    def texts(device, batch):
        output = kit.tessera("generate", run, *prompts, "--greedy", "--json", "--device", device, "--batch", batch).output
        return "\n".join(line for line in output.splitlines() if line.startswith("{"))

    made = {f"{device}, {batch} at a time": texts(device, batch) for device in {"cpu", kit.device} for batch in (1, 3)}
    if len(set(made.values())) != 1:
        raise Failed(f"texts differ: {made}")
    losses = {device: float(re.search(r"^loss +(\S+)", kit.tessera("evaluate", run, "--device", device).output, re.M)[1])
              for device in {"cpu", kit.device}}
    if max(losses.values()) - min(losses.values()) > 1e-3:
        raise Failed(f"evaluated losses differ: {losses}")
    return f"the same text on {' and '.join(sorted({'cpu', kit.device}))}, alone and in a batch; evaluated loss {losses['cpu']}"


CHECKS = [Check("train/fp32-bert", cpu_against_cuda("bert"), 40, ("gpu",)),
          Check("train/fp32-gpt", cpu_against_cuda("gpt"), 40, ("gpu",)),
          Check("train/bf16", sixteen_bits("bf16"), 40),
          Check("train/fp16", sixteen_bits("fp16"), 40),
          Check("train/ema", changes_nothing(ORDER_TOLERANCE, "bert", train={"ema": 0.9}, checkpoint={"every": curves.STEPS}), 40),
          Check("train/recompute", changes_nothing(ORDER_TOLERANCE, "bert", "gpt", train={"recompute": "blocks"}), 40),
          Check("train/offload", changes_nothing(ORDER_TOLERANCE, "bert", parallel={"offload": "optimizer"}), 40),
          Check("train/lora", lora, 40),
          Check("train/resume", resume, 90),
          Check("train/padding-64", padded(64), 60),
          Check("train/padding-192", padded(192), 60),
          Check("train/deterministic", deterministic, 40),
          Check("generate", generate, 40)]
