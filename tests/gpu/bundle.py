"""What a bare machine lacks to run our programs: the closure of their shared libraries, and Open MPI with its plug-ins."""
import os
import pathlib
import re
import shutil
import subprocess

import elf

# Every Linux has the C library; torch needs the C++ one of the machine itself, which may be newer than ours, and brings CUDA's.
NOT_PACKED = {"ld-linux-x86-64", "libc", "libm", "libdl", "librt", "libpthread", "libresolv", "libutil", "libstdc++", "libgcc_s",
              "libnccl", "libcudart"}
# Fabrics, schedulers and OpenSHMEM, which one machine without them does not use, and the large libraries that they bring.
UNUSED_MPI = re.compile(r"_(ofi|ucx|openib|psm2?|slurm|flux|jsm|gridengine|monitoring|simulator|romio\w*|yalla|portals4)\.so$"
                        r"|mca_(memheap|spml|sshmem|scoll)_")
# Found beside the program, wherever the kit lies; `torch` is a link to the libraries of the target's Python.
SEARCH_PATH = "$ORIGIN/../lib:$ORIGIN/../torch:$ORIGIN/../cuda:$ORIGIN/../nccl"


def needed(path):
    """{name: path} of the libraries that the loader finds for a file here; FileNotFoundError for one that is missing."""
    listing = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    missing = re.findall(r"^\s*(\S+) => not found", listing, re.M)
    if missing:
        raise FileNotFoundError(f"{path} needs {', '.join(missing)}, which this machine lacks")
    return {name: pathlib.Path(found) for name, found in re.findall(r"^\s*(\S+) => (/\S+)", listing, re.M)}


def closure(paths):
    """{name: path} of what these files need and a bare machine with torch lacks."""
    found = {}
    for path in paths:
        for name, library in needed(path).items():
            of_torch = {"torch", "nvidia"} & set(library.resolve().parts)
            if not of_torch and name.split(".so")[0] not in NOT_PACKED:
                found[name] = library
    return found


def copy_stripped(source, target):
    """A copy without debug information and local symbols, executable as before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source.resolve(), target)
    subprocess.run(["strip", "--strip-unneeded", target], check=True)


def copy_searching(source, target, path):
    """A copy that looks for its libraries along `path`."""
    copy_stripped(source, target)
    data = bytearray(target.read_bytes())
    elf.set_search_path(data, path)
    target.write_bytes(data)


def mpi_folders():
    """Where the Open MPI of this machine keeps its parts: {"bindir": …, "pkglibdir": …, "pkgdatadir": …}."""
    listing = subprocess.run(["ompi_info", "--path", "all", "--parsable"], capture_output=True, text=True, check=True).stdout
    return {name: pathlib.Path(value) for name, value in re.findall(r"^path:(\w+):(.*)$", listing, re.M)}


MPIRUN = """#!/bin/sh
# Open MPI moved here from where it was installed: it and its parts must be told.
home=$(cd "$(dirname "$0")/.." && pwd)
export OPAL_PREFIX="$home" OPAL_BINDIR="$home/bin" OPAL_LIBDIR="$home/lib" OPAL_PKGLIBDIR="$home/plugins" OPAL_DATADIR="$home/share"
export OPAL_PKGDATADIR="$home/share/openmpi" OPAL_SYSCONFDIR="$home/etc" PMIX_INSTALL_PREFIX="$home"
export OMPI_MCA_mca_base_component_path="$home/plugins" PMIX_MCA_mca_base_component_path="$home/pmix"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm_rsh_agent=false
export LD_LIBRARY_PATH="$home/../lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$home/bin/orterun" "$@"
"""


def copy_mpi(kit):
    """Open MPI in `kit`/mpi with a starter that finds all of it; returns the copied files, whose libraries are needed too."""
    folders, home = mpi_folders(), kit / "mpi"
    sources = {folders["bindir"] / name: home / "bin" / name for name in ("orterun", "orted")}
    plugins = [path for path in folders["pkglibdir"].glob("mca_*.so") if not UNUSED_MPI.search(path.name)]
    sources |= {path: home / "plugins" / path.name for path in plugins}
    (pmix,) = {library.resolve().parent for path in plugins for name, library in needed(path).items() if name.startswith("libpmix.")}
    sources |= {path: home / "pmix" / path.name for path in (pmix / "pmix").glob("*.so") if not UNUSED_MPI.search(path.name)}
    for source, target in sources.items():
        copy_stripped(source, target)
    shutil.copytree(folders["pkgdatadir"], home / "share/openmpi", ignore=lambda _, names: [n for n in names if not n.startswith("help-")])
    (home / "etc").mkdir()
    starter = home / "bin/mpirun"
    starter.write_text(MPIRUN)
    starter.chmod(0o755)
    return list(sources)


def copy_libraries(libraries, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in libraries.items():
        if elf.search_path(path.read_bytes()):  # its own path would be all that is searched for its libraries
            copy_searching(path, folder / name, "$ORIGIN")
        else:
            copy_stripped(path, folder / name)


def size(folder):
    return sum(os.lstat(path).st_size for path in folder.rglob("*") if path.is_file())
