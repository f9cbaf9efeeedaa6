"""The machine that is checked: where the kit lies on it, what it has, and how our programs are started there."""
import ctypes
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time

import runner

MAIN, NCCL = "tessera-gpu.tar.xz", "nccl.tar.xz"


def unpack(archive, folder):
    """Unpacks into `folder`, once for each archive; the main one takes the place of whatever was there."""
    stamp = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
    marker = folder / f".{archive.name}"
    if marker.exists() and marker.read_text() == stamp:
        return
    if archive.name == MAIN:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    marker.write_text(stamp)


def link(path, target):
    if path.is_symlink():
        path.unlink()
    path.symlink_to(target)


def find_program(name):
    """A program of the PATH, or where CUDA's toolkit and profilers are usually installed."""
    found = shutil.which(name)
    places = ["usr/local/cuda*/bin", "opt/nvidia/nsight-compute/*", "usr/local/cuda*/nsight-compute*", "usr/local/cuda*/compute-sanitizer"]
    return found or next((str(path) for place in places for path in sorted(pathlib.Path("/").glob(f"{place}/{name}"))), None)


class Kit:
    """What checks work with: `bin`, `data` (bert, gpt), `scratch` for their runs, `values` for the figures they report.

    Programs compute with one thread each, unless a check says otherwise with OMP_NUM_THREADS."""

    def __init__(self, root, scratch):
        self.root, self.bin, self.data, self.scratch = root, root / "bin", root / "data", scratch
        self.logs = scratch / "logs"
        shutil.rmtree(scratch, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self.values, self.name, self.deadline = {}, "", 0.0
        if find_program("nvidia-smi"):  # the device's files may appear with the driver's first use only
            subprocess.run([find_program("nvidia-smi"), "-L"], capture_output=True, timeout=60)
        self.has_gpu = pathlib.Path("/dev/nvidiactl").exists() or pathlib.Path("/dev/dxg").exists()
        self.device = "cuda" if self.has_gpu else "cpu"
        self.threads = len(os.sched_getaffinity(0))
        self.nccl = next(root.glob("nccl-newer/libnccl.so.2"), None)

    def link_torch(self):
        """Where the programs look for LibTorch: the folders of this Python's torch. Returns what is missing, or nothing."""
        spec = importlib.util.find_spec("torch")
        if spec is None or not spec.submodule_search_locations:
            return f"{sys.executable} has no torch: start check with the Python that has it"
        torch = pathlib.Path(spec.submodule_search_locations[0])
        link(self.root / "torch", torch / "lib")
        link(self.root / "cuda", torch.parent / "nvidia/cu13/lib")
        link(self.root / "nccl", torch.parent / "nvidia/nccl/lib")
        return None

    def lacks(self, need):
        """Why a check that needs this cannot run here; None where it can. Needs: gpu, nccl, program:NAME, python:NAME."""
        kind, _, name = need.partition(":")
        if kind == "program":
            return None if find_program(name) else f"this machine has no {name}"
        if kind == "python":
            return None if importlib.util.find_spec(name) else f"this Python has no {name}"
        if not self.has_gpu:
            return "this machine shows no NVIDIA GPU"
        return None if kind == "gpu" or self.nccl else f"{NCCL} is not here: several ranks on one GPU need the newer NCCL in it"

    def begin(self, name, deadline):
        self.name, self.deadline = name, deadline

    @property
    def log_path(self):
        return self.logs / runner.log_name(self.name)

    def log(self, text):
        with self.log_path.open("a") as file:
            file.write(text + "\n")

    def environment(self, nccl=False, **more):
        """`nccl`: in front of torch's own, the one that lets several ranks share a GPU."""
        several = {"NCCL_MULTI_RANK_GPU_ENABLE": 1, "NCCL_DEBUG": "WARN", "LD_PRELOAD": self.nccl} if nccl else {}
        path = f"{self.root / 'mpi/bin'}:{pathlib.Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        settings = {"PATH": path, "OMP_NUM_THREADS": 1, "TESSERA_BUILD": self.bin, "TESSERA_TEST_DEVICE": self.device,
                    "TESSERA_TIMEOUT_SECONDS": 60, "PYTHONDONTWRITEBYTECODE": 1, **several, **more}
        return {**os.environ, **{name: str(value) for name, value in settings.items()}}

    def run(self, *command, nccl=False, ok=(0,), limit=1e9, kill_when=None, **environment):
        """The command's Finished; Failed with the end of its output for a code that is not `ok`."""
        left = min(limit, self.deadline - time.monotonic())
        done = runner.run_command(command, self.log_path, left, kill_when, cwd=self.root, env=self.environment(nccl, **environment))
        if ok is not None and done.code not in ok:
            lines = [line for line in done.output.splitlines() if line.strip()]
            raise runner.Failed(f"{pathlib.Path(str(command[0])).name} ended with {done.code}: {' | '.join(lines[-3:])[-400:]}")
        return done

    def tessera(self, *words, ranks=1, **options):
        return self.run(*self.mpirun(ranks), self.bin / "tessera", *words, **options)

    def mpirun(self, ranks):
        """The words before a program of several ranks."""
        return [] if ranks == 1 else [self.root / "mpi/bin/mpirun", "--oversubscribe", "--bind-to", "none", "-n", ranks]

    def knows(self, program, word):
        """Whether a built program has a word in it, such as the name of a variable that it would read."""
        return word.encode() in (self.bin / program).read_bytes()

    def json(self, path):
        if not path.exists():
            raise runner.Failed(f"{path.name} was not written")
        return json.loads(path.read_text())

    def nccl_version(self):
        """Of the newer NCCL, as 23203; it loads without a GPU."""
        version = ctypes.c_int()
        ctypes.CDLL(str(self.nccl)).ncclGetVersion(ctypes.byref(version))
        return version.value
