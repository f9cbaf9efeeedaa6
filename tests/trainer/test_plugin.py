"""Every program that looks for the GPU plug-in has what the plug-in takes from it; otherwise it would run without a GPU where there is one."""
import os
import pathlib
import subprocess

import pytest

BUILD = pathlib.Path(os.environ.get("TESSERA_BUILD", "build/release"))
PLUGIN = BUILD / "libtessera_cuda.so"
# parallel's tests know no trainer, whose kernels the plug-in joins: they never use a GPU.
WITHOUT = {"test_parallel"}


def symbols(file, which):
    listing = subprocess.run(["nm", "--dynamic", which, "--format=just-symbols", file], capture_output=True, text=True, check=True)
    return {line for line in listing.stdout.split() if "7tessera" in line}


@pytest.mark.skipif(not PLUGIN.exists(), reason="built without GPU support")
def test_programs_have_what_the_plugin_takes():
    taken = symbols(PLUGIN, "--undefined-only")
    assert taken
    lacking, seen = {}, 0
    for program in [BUILD / "tessera", *BUILD.glob("test_*"), *BUILD.glob("tool_*")]:
        if not program.is_file() or program.name in WITHOUT:
            continue
        own = symbols(program, "--defined-only")
        if any("find_gpu_plugin" in symbol for symbol in own):
            seen += 1
            lacking |= {program.name: taken - own} if taken - own else {}
    assert seen > 10 and not lacking, lacking
