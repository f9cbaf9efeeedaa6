"""Several ranks: the conformance of the transports, how jobs end, and the curves of every axis.

On a GPU all ranks share it, over the newer NCCL; without one they are processes on the CPU over MPI."""
import re
import time

from checks.curves import plain, same, train
from checks.kernels import counts
from runner import Check, Failed, Skipped

LAYOUTS = {"zero3": {"shard": 2, "zero": 3}, "tensor2": {"tensor": 2}, "pipeline2": {"pipeline": 2}, "ring2": {"context": 2}}
TOLERANCE = 1e-4


def conformance(pattern, nccl):
    def run(kit):
        hidden = {} if nccl else {"CUDA_VISIBLE_DEVICES": ""}  # some tests take every transport that there is
        output = kit.run(*kit.mpirun(2), kit.bin / "test_ranks", f"--gtest_filter={pattern}", nccl=nccl, **hidden).output
        passed, skipped = counts(output)
        kit.values = {"passed": passed, "skipped": skipped}
        if passed == 0:
            raise Failed("no test passed")
        return f"{passed} tests passed on 2 ranks, {skipped} skipped"

    return run


def ending(how, within, says, nccl):
    """Rank 1 misbehaves in step 3: the job ends by itself, soon, and says what happened."""
    def run(kit):
        start = time.monotonic()
        where = ["gpu"] if nccl else []
        patience = 10 if nccl else 5  # starting NCCL counts too
        done = kit.run(*kit.mpirun(2), kit.bin / "tool_fail", how, 1, *where, nccl=nccl, ok=None, TESSERA_TIMEOUT_SECONDS=patience)
        seconds = time.monotonic() - start
        said = re.search(says, done.output)
        if done.code == 0 or seconds > within or not said:
            raise Failed(f"code {done.code} after {seconds:.1f} s, and {'a' if said else 'no'} word of '{says}'")
        return f"ended after {seconds:.1f} s with code {done.code}"

    return run


def layout(parallel):
    def run(kit):
        if kit.has_gpu and kit.lacks("nccl"):
            raise Skipped(kit.lacks("nccl"))
        name = kit.name.replace("/", "-")
        micro = 4 if "pipeline" in parallel or "shard" in parallel else 8
        several = train(kit, name, "gpt", ranks=2, nccl=kit.has_gpu, parallel=parallel, train={"micro_batch": micro})
        return same(kit, several, plain(kit, "gpt"), TOLERANCE, f"2 ranks against 1 on {kit.device}")

    return run


def both(name, limit, make):
    """The check over MPI on the CPU, and over NCCL on the GPU."""
    return [Check(f"ranks/{name}-mpi", make(False), limit), Check(f"ranks/{name}-nccl", make(True), limit, ("nccl",))]


# Ranks that share a GPU take turns on it: what sends thousands of messages is left to one GPU per rank.
CHECKS = [*both("conformance", 120, lambda nccl: conformance("*Conformance*nccl*" if nccl else "*", nccl)),
          Check("ranks/context-nccl", conformance("*ContextAttention*nccl*-*gradients_are*", True), 120, ("nccl",)),
          Check("ranks/pipeline-nccl", conformance("*Pipeline*", True), 120, ("nccl",)),
          *both("throw", 60, lambda nccl: ending("throw", 45, "a broken invariant", nccl)),
          *both("hang", 60, lambda nccl: ending("hang", 45, "all_reduce|all-reduce", nccl)),
          *[Check(f"ranks/{name}", layout(parallel), 60) for name, parallel in LAYOUTS.items()]]
