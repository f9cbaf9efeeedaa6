"""The plug-in's kernels use the memory's whole width and spill nothing (tests/cuda/sass.py)."""
import os
import pathlib

import pytest

from sass import find_cuobjdump, kernels_in, table

PLUGIN = pathlib.Path(os.environ.get("TESSERA_BUILD", "build/release")) / "libtessera_cuda.so"


@pytest.mark.skipif(not PLUGIN.exists(), reason="built without nvcc")
@pytest.mark.skipif(not find_cuobjdump(), reason="no cuobjdump here")
def test_kernels_access_16_bytes_at_a_time_and_spill_nothing():
    kernels = kernels_in(PLUGIN)
    print(table(kernels))
    assert {kernel.source for kernel in kernels} >= {"activation", "cross_entropy", "residual_norm"}
    assert not [f"{each.source}: {each.name}: {fault}" for each in kernels for fault in each.faults()]
