"""A model that does not fit on one rank under a limit on its memory trains on four, sharded or divided."""
import subprocess

import pytest
import runs
from tiers import slow_but

LIMIT_MIB = 520  # of data (heap and private mappings), per rank
# 24 million parameters: weights, gradients and Adam's state alone are 16 bytes each, 370 MiB.
MODEL = {"num_layers": 12, "hidden_size": 512, "num_heads": 8, "feed_forward_size": 1152}


def limited(folder, ranks, **parallel):
    path = runs.recipe(folder, "gpt", model=MODEL, parallel=parallel,
                       train={"steps": 3, "global_batch": 4, "micro_batch": 1}, checkpoint={"every": 1000}, evaluate={"batches": 2})
    command = [*runs.mpirun(ranks), "bash", "-c", f'ulimit -d {LIMIT_MIB * 1024}; exec "$0" "$@"', str(runs.PROGRAM), "train", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=runs.environment(), cwd=runs.ROOT)


def test_one_rank_says_what_is_missing(tmp_path):
    result = limited(tmp_path, 1)
    assert result.returncode == 2, result.stderr
    assert "memory" in result.stderr and "parallel.shard" in result.stderr, result.stderr


@pytest.mark.parametrize("parallel", slow_but([{"shard": 4}], [{"shard": 4}, {"tensor": 4}, {"pipeline": 4}, {"shard": 2, "tensor": 2}]), ids=str)
def test_four_ranks_train(parallel, tmp_path):
    runs.must(limited(tmp_path, 4, **parallel))
    assert len(runs.metrics(tmp_path / "run")) == 3
