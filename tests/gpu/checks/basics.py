"""What machine this is, and whether the program starts, measures and plans on it."""
import json
import sys

from runner import Check, Failed
from target import find_program

ABOUT_TORCH = """
import json, torch
facts = {"python": __import__("sys").version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda}
if torch.cuda.is_available():
    gpu = torch.cuda.get_device_properties(0)
    facts |= {"gpu": gpu.name, "gpus": torch.cuda.device_count(), "capability": f"{gpu.major}.{gpu.minor}",
              "memory_gib": round(gpu.total_memory / 2**30, 1), "multiprocessors": gpu.multi_processor_count,
              "cudnn": torch.backends.cudnn.version(), "nccl": ".".join(map(str, torch.cuda.nccl.version()))}
print(json.dumps(facts))
"""
PACKED_FOR = "2.11."


def versions(kit):
    facts = json.loads(kit.run(sys.executable, "-c", ABOUT_TORCH).output.splitlines()[-1])
    if kit.has_gpu:
        if find_program("nvidia-smi"):
            kit.run(find_program("nvidia-smi"), ok=None)  # for the log
        if "gpu" not in facts:
            raise Failed("there is a GPU's device file, but torch sees no GPU")
    if kit.nccl:
        facts["newer_nccl"] = kit.nccl_version()
    kit.values = {**facts, "tessera": kit.tessera("--version").output.strip()}
    if not facts["torch"].startswith(PACKED_FOR):
        raise Failed(f"torch {facts['torch']}: the packed programs need {PACKED_FOR}x")
    return ", ".join(f"{name} {value}" for name, value in kit.values.items())


def doctor(kit):
    """The figures that `validate --machine` then plans with."""
    saved = kit.scratch / "machine.json"
    kit.tessera("doctor", "--save", saved, OMP_NUM_THREADS=min(kit.threads, 8))
    kit.values = kit.json(saved)
    return " ".join(f"{name} {value:.4g}" for name, value in kit.values.items() if isinstance(value, float) and value > 0)


def validate(kit):
    """Every shipped pre-training recipe; with this machine's own figures where doctor has just measured them."""
    saved = kit.scratch / "machine.json"
    machine = ["--machine", saved] if saved.exists() else []
    recipes = sorted((kit.root / "recipes").rglob("pretrain-*.yaml"))
    for recipe in recipes:
        plan = json.loads(kit.tessera("validate", recipe, "--memory", 80, "--json", *machine).output)
        kit.values[recipe.stem] = plan
    return f"{len(recipes)} recipes"


CHECKS = [Check("versions", versions, 90), Check("doctor", doctor, 60), Check("validate", validate, 60)]
