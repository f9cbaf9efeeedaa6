#!/usr/bin/env python3
"""What the compiler made of our CUDA kernels for sm_90: registers, shared memory, accesses of 16 bytes, spills.

usage: tests/cuda/sass.py FILE…   (libtessera_cuda.so, or object files that nvcc made for sm_90)
"""
import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys

# Paths for widths that 8 does not divide, or addresses that 16 does not: element by element.
SCALAR = re.compile(r"(forward|backward|dropout|row_means)_kernel<.*, false>")
# These write a few numbers per row, column or block.
LOADS_ONLY = re.compile(r"(row_means_kernel|total_kernel)<|chunks_kernel$")
# One block, a few numbers altogether.
SMALL = re.compile(r"^(begin_kernel|total_kernel)$")


@dataclasses.dataclass
class Kernel:
    source: str  # the file that it is in, without its end
    name: str
    registers: int = 0
    shared: int = 0  # static, bytes
    local: int = 0  # bytes of stack and of spilled registers
    loads: int = 0  # instructions, of 16 bytes and global memory
    stores: int = 0
    spills: int = 0  # instructions on local memory

    def faults(self):
        scalar = SCALAR.search(self.name) or SMALL.search(self.name)
        if self.local or self.spills:
            yield f"{self.local} bytes of local memory, {self.spills} instructions on it"
        if not scalar and not self.loads:
            yield "no loads of 16 bytes"
        if not scalar and not self.stores and not LOADS_ONLY.search(self.name):
            yield "no stores of 16 bytes"


def find_cuobjdump():
    """nvcc's wheel has none; Triton, which torch brings, does."""
    beside = pathlib.Path(sys.executable).parent.parent.glob("lib/python3*/site-packages/triton/backends/nvidia/bin/cuobjdump")
    for candidate in [shutil.which("cuobjdump"), "/usr/local/cuda/bin/cuobjdump", *beside]:
        if candidate and pathlib.Path(candidate).exists():
            return str(candidate)
    return None


def dump(option, path):
    return subprocess.run([find_cuobjdump(), "-arch", "sm_90", option, path], capture_output=True, text=True, check=True).stdout


def kernels_in(path):
    found = {}
    for mangled, registers, stack, shared, local in re.findall(
            r"Function (\w+):\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", dump("-res-usage", path)):
        source = re.search(r"_\d+_(\w+)_cu_", mangled)
        found[mangled] = Kernel(source[1] if source else "", mangled, int(registers), int(shared), int(stack) + int(local))
    for text in re.split(r"Function : ", dump("-sass", path))[1:]:
        kernel = found[text.split()[0]]
        kernel.loads += len(re.findall(r"\bLDG\S*\.128\b", text))
        kernel.stores += len(re.findall(r"\bSTG\S*\.128\b", text))
        kernel.spills += len(re.findall(r"\b(?:LDL|STL)\b", text))
    names = subprocess.run(["c++filt"], input="\n".join(found), capture_output=True, text=True, check=True).stdout.splitlines()
    for kernel, name in zip(found.values(), names):
        signature = name.replace("(anonymous namespace)::", "").replace("tessera::cuda::", "").replace("c10::", "")
        kernel.name = signature.removeprefix("void ").split("(")[0].replace("(bool)1", "true").replace("(bool)0", "false")
    return list(found.values())


def table(kernels):
    lines = [f"{'kernel':58} registers shared  16-byte loads stores  local"]
    for each in sorted(kernels, key=lambda kernel: (kernel.source, kernel.name)):
        lines.append(f"{each.source + ': ' + each.name:58} {each.registers:9} {each.shared:6} {each.loads:14} {each.stores:6} {each.local:6}")
    return "\n".join(lines)


def main(paths):
    kernels = [kernel for path in paths for kernel in kernels_in(path)]
    print(table(kernels))
    faults = [f"{each.source}: {each.name}: {fault}" for each in kernels for fault in each.faults()]
    print("\n".join(faults) if faults else f"{len(kernels)} kernels: no spills, accesses of 16 bytes wherever data allow")
    return 1 if faults else 0


if __name__ == "__main__":
    if len(sys.argv) < 2 or not find_cuobjdump():
        sys.exit("no cuobjdump here" if len(sys.argv) > 1 else __doc__)
    sys.exit(main(sys.argv[1:]))
