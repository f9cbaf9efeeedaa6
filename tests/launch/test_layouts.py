"""The same recipe gives the same curve on any layout: 1, 2 and 4 ranks x accumulation, dropout on, fp32, 20 steps."""
import pytest
import runs
from tiers import slow_but

GLOBAL_BATCH = 16
CASES = [(family, ranks, accumulation) for family in runs.FAMILIES for ranks in (1, 2, 4) for accumulation in (1, 2, 4) if ranks * accumulation > 1]
FAST = [("gpt", 1, 4), ("gpt", 2, 2), ("gpt", 4, 1), ("bert", 2, 1)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    curves = {}
    for family in runs.FAMILIES:
        folder = tmp_path_factory.mktemp(family)
        runs.must(runs.tessera("train", runs.recipe(folder, family, train={"micro_batch": GLOBAL_BATCH})))
        curves[family] = runs.metrics(folder / "run"), runs.metrics(folder / "run", "grad_norm")
    return curves


@pytest.mark.parametrize("family,ranks,accumulation", slow_but(FAST, CASES))
def test_curve(family, ranks, accumulation, reference, tmp_path):
    path = runs.recipe(tmp_path, family, train={"micro_batch": GLOBAL_BATCH // ranks // accumulation})
    runs.must(runs.tessera("train", path, ranks=ranks))
    losses, norms = reference[family]
    assert len(losses) == 20
    assert runs.metrics(tmp_path / "run") == pytest.approx(losses, rel=1e-5)
    assert runs.metrics(tmp_path / "run", "grad_norm") == pytest.approx(norms, rel=1e-4)


def test_dropout_is_on(reference, tmp_path):
    runs.must(runs.tessera("train", runs.recipe(tmp_path), "model.dropout=0"))
    assert runs.metrics(tmp_path / "run")[20] != pytest.approx(reference["bert"][0][20], rel=1e-5)


def test_another_seed_gives_another_curve(reference, tmp_path):
    runs.must(runs.tessera("train", runs.recipe(tmp_path), "run.seed=8"))
    assert runs.metrics(tmp_path / "run")[20] != pytest.approx(reference["bert"][0][20], rel=1e-5)
