"""The plug-in and its kernels against ATen's, also under the sanitizers' eyes."""
import re

from runner import Check, Failed
from target import find_program

# Sanitizers need minutes for what they watch: each kernel in one type, and only our kernels.
FEW = "All/KernelsOfType.*/CUDA*Float"


def counts(output):
    """(passed, skipped) of a GoogleTest program."""
    passed, skipped = (re.search(rf"^\[  {word} *\] (\d+) test", output, re.M) for word in ("PASSED", "SKIPPED"))
    return int(passed[1]) if passed else 0, int(skipped[1]) if skipped else 0


def google_test(program, pattern):
    def run(kit):
        output = kit.run(kit.bin / program, f"--gtest_filter={pattern}").output
        passed, skipped = counts(output)
        kit.values = {"passed": passed, "skipped": skipped}
        if passed == 0 or (kit.has_gpu and skipped):
            raise Failed(f"{passed} tests passed, {skipped} were skipped")
        return f"{passed} tests passed" + (f", {skipped} need a GPU" if skipped else "")

    return run


def sanitize(tool):
    def run(kit):
        quiet = ["--report-api-errors", "no"] if tool == "memcheck" else []  # libraries ask for functions that are not there
        done = kit.run(find_program("compute-sanitizer"), "--tool", tool, *quiet, "--kernel-name", "kns=tessera", "--error-exitcode", 9,
                       kit.bin / "test_trainer", f"--gtest_filter={FEW}", PYTORCH_NO_CUDA_MEMORY_CACHING=1)  # each tensor's own bounds
        if counts(done.output)[0] == 0 or "ERROR SUMMARY" not in done.output.replace("RACECHECK SUMMARY", "ERROR SUMMARY"):
            raise Failed("no test ran, or the sanitizer gave no summary")
        return f"{counts(done.output)[0]} tests passed, nothing found"

    return run


SANITIZER = ("gpu", "program:compute-sanitizer")
CHECKS = [Check("kernels", google_test("test_trainer", "GpuPlugin.*:All/KernelsOfType.*:Dropout.*:Functions.*:LinearCrossEntropy.*"), 60),
          Check("parallel", google_test("test_parallel", "-*takes_biases_of_one_row_and_causal_ones/flash"), 90),  # it takes none
          Check("sanitizer/memcheck", sanitize("memcheck"), 100, SANITIZER),
          Check("sanitizer/racecheck", sanitize("racecheck"), 100, SANITIZER)]
