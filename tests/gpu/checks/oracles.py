"""Models and optimizers equal transformers' and torch.optim's, computed on the GPU where there is one."""
import importlib.util
import re
import sys

from runner import Check, Failed, Skipped

NEEDS = ("python:pytest", "python:h5py", "python:numpy", "python:transformers")


def oracle(test, tool):
    def run(kit):
        if kit.has_gpu and not kit.knows(tool, "TESSERA_TEST_DEVICE"):
            raise Skipped(f"this build's {tool} does not know TESSERA_TEST_DEVICE: it would compute on the CPU")
        workers = ["-n", max(1, min(kit.threads // 2, 8))] if importlib.util.find_spec("xdist") else []
        output = kit.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, f"tests/trainer/test_{test}_oracle.py").output
        passed = re.search(r"(\d+) passed", output)
        if not passed:
            raise Failed("no test passed")
        kit.values = {"passed": int(passed[1])}
        return output.splitlines()[-1] + f" on {kit.device}"

    return run


CHECKS = [Check("oracle/models", oracle("models", "tool_model_oracle"), 100, NEEDS),
          Check("oracle/tasks", oracle("task_models", "tool_task_oracle"), 100, NEEDS),
          Check("oracle/optimizers", oracle("optimizers", "tool_optimizer"), 100, ("python:pytest", "python:numpy"))]
