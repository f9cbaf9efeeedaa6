"""The table of all checks, in the order in which they run: what only a GPU can tell, and tells most, comes first; time may run out."""
from checks import basics, kernels, oracles, peers, ranks, speed, training

FIRST = ["versions", "kernels", "train/fp32-", "train/bf16", "speed/gpt2", "speed/bert", "bandwidth/", "train/deterministic", "train/resume",
         "generate", "sanitizer/memcheck", "ranks/conformance-nccl", "ranks/zero3", "peer/", "ncu/", "train/", "ranks/", "oracle/", "sanitizer/",
         "doctor", "validate", "parallel", "speed/mini-cpu", "compiled-peer/"]  # beginnings of names; the last compile for minutes


def place(check):
    return next(i for i, beginning in enumerate(FIRST) if check.name.startswith(beginning))


ALL = sorted([*basics.CHECKS, *kernels.CHECKS, *oracles.CHECKS, *training.CHECKS, *speed.CHECKS, *peers.EAGER, *speed.COUNTERS, *ranks.CHECKS,
              *peers.COMPILED], key=place)
