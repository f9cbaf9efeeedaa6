"""Frozen parameters: the same curve on every mesh, no optimizer state, no change, and none of their bytes on the wire."""
import h5py
import numpy
import pytest
import runs
from test_meshes import GLOBAL_BATCH, MESHES, all_at_once, global_batch
from tiers import slow_but

NAMES = ["zero 1, 3 ranks, accumulated", "zero 2, 4 ranks, accumulated", "zero 3, 4 ranks, accumulated, recomputed",
         "replicate 2 x zero 3", "tensor 2, accumulated, recomputed", "zero 3 x tensor 2", "zero 3 x ring 2", "pipeline 3, own split",
         "pipeline 2 x 2 chunks, interleaved", "zero 3 x pipeline 2 x 2 chunks", "tensor 2 x pipeline 2"]
CASES = [(family, choice, name) for family in runs.FAMILIES for choice in ("last", "scattered") for name in NAMES]
FAST = [("bert", "last", "pipeline 3, own split"), ("gpt", "last", "zero 2, 4 ranks, accumulated"), ("gpt", "scattered", "zero 3 x tensor 2")]
# The end alone, so that nothing goes back through most blocks; and something at both ends and in between.
CHOICES = {"last": {"last_blocks": 1}, "scattered": {"train": ["embeddings.position.*", "layers.[02].*.bias", "layers.2.feed_forward.*"],
                                                     "freeze": ["layers.2.feed_forward.contract.bias"]}}


def train(folder, family, choice, ranks=1, parallel=None, resume=(), **train):
    parallel = parallel or {}
    batch = global_batch(ranks)
    train = {"global_batch": batch, "micro_batch": all_at_once(ranks, parallel, batch), **train}
    recipe = runs.recipe(folder, family, train=train, parallel=parallel, adapt={"method": "freeze", **CHOICES[choice]},
                         optimizer={"learning_rate": 1e-2}, checkpoint={"every": 10, "keep": 9}, log={"profile": True})
    runs.must(runs.tessera("train", recipe, *resume, ranks=ranks))
    return folder / "run"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folders = {}

    def run(family, choice, batch):
        if (family, choice, batch) not in folders:
            folder = tmp_path_factory.mktemp(family)
            folders[family, choice, batch] = train(folder, family, choice, global_batch=batch, micro_batch=batch)
        return folders[family, choice, batch]

    return run


def trained(choice, name, layers=4):
    """What the documentation of the keys says."""
    parts = name.split(".")
    if choice == "last":
        return parts[1] == str(layers - 1) if parts[0] == "layers" else parts[0] != "embeddings"
    if name == "layers.2.feed_forward.contract.bias":
        return False
    return name.startswith("embeddings.position.") or name.startswith("layers.2.feed_forward.") or (
        parts[0] == "layers" and parts[1] in "02" and parts[-1] == "bias")


@pytest.mark.parametrize("family", runs.FAMILIES)
@pytest.mark.parametrize("choice", CHOICES)
def test_only_the_chosen_ones_move_and_have_state(family, choice, reference):
    run = reference(family, choice, GLOBAL_BATCH)
    before, after = runs.tensors(run, 10), runs.tensors(run, 20)
    names = [name.removeprefix("model/") for name in after if name.startswith("model/")]
    states = {name.split("/")[-1] for name in after if name.startswith("optimizer/")}
    for name in names:
        moved = not numpy.array_equal(before["model/" + name], after["model/" + name])
        assert moved == trained(choice, name) == (name in states), name
    assert 0 < len(states) < len(names)
    losses = runs.metrics(run)
    assert losses[20] < losses[1]


@pytest.mark.parametrize("family,choice,name", slow_but(FAST, CASES))
def test_curve(family, choice, name, reference, tmp_path):
    ranks, parallel, changes = MESHES[name]
    run = train(tmp_path, family, choice, ranks, parallel, **changes)
    expected = reference(family, choice, global_batch(ranks))
    for key in ("loss", "grad_norm", "validation_loss"):
        assert runs.metrics(run, key) == pytest.approx(runs.metrics(expected, key), rel=1e-5), key


def test_resumes_on_another_mesh(reference, tmp_path):
    train(tmp_path, "gpt", "scattered", 4, {"shard": 2, "tensor": 2}, ["train.stop_after=10"], micro_batch=8)
    run = train(tmp_path, "gpt", "scattered", 2, {"pipeline": 2}, micro_batch=8)
    assert runs.metrics(run) == pytest.approx(runs.metrics(reference("gpt", "scattered", GLOBAL_BATCH)), rel=1e-5)


@pytest.mark.parametrize("parallel", [{}, {"shard": 2, "zero": 1}, {"shard": 2, "zero": 2}])
def test_frozen_ones_do_not_travel(parallel, tmp_path):
    run = train(tmp_path, "gpt", "last", 2, parallel)
    with h5py.File(run / "checkpoints/step-00000020/checkpoint.h5") as file:
        sizes = {}
        file["model"].visititems(lambda name, item: sizes.update({name: item.size}) if isinstance(item, h5py.Dataset) else None)
    moving = sum(size for name, size in sizes.items() if trained("last", name))
    key = "sent_bytes_gradient" if not parallel else "sent_bytes_shard"
    # Half of everything one way as gradients, half the other way as sums or parameters; rows are filled up.
    sent = runs.metrics(run, key)
    assert 4 * moving * 0.95 < sent[5] < 4 * moving * 1.1 + 2000, (sent[5], moving, sum(sizes.values()))
    assert moving < 0.4 * sum(sizes.values())


@pytest.mark.parametrize("adapt,words", [
    ({"method": "freez"}, ["adapt.method", "did you mean 'freeze'", "full"]),
    ({"method": "freeze"}, ["adapt", "neither what to train nor what to freeze", "last_blocks"]),
    ({"method": "freeze", "train": ["layers.9.*"]}, ["adapt.train", "layers.9.*", "matches none", "layers.*.attention.query.weight"]),
    ({"method": "freeze", "freeze": ["*"]}, ["adapt.freeze", "nothing is left to train"]),
    ({"method": "freeze", "last_blocks": 5}, ["adapt.last_blocks", "5 of the model's 4 blocks", "0 to 4"]),
    ({"method": "full", "train": ["*"]}, ["adapt.train", "unknown key"]),
])
@pytest.mark.parametrize("ranks", slow_but([1], [1, 2]))
def test_mistakes(adapt, words, ranks, tmp_path):
    done = runs.tessera("train", runs.recipe(tmp_path, "bert", adapt=adapt), ranks=ranks)
    assert done.returncode == 2, done.stdout + done.stderr
    for word in [*words, "recipe.yaml:"]:
        assert word in done.stderr, done.stderr
