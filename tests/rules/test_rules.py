"""The rules of the house that a machine can check: layers, file lengths, formatting, clean texts, a small repository."""
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAYERS = ["recipes", "parallel", "datasets", "trainer", "launch"]
MAX_LINES = 450
# Files that are one table or one algorithm and read worse when cut.
LONG_FILES: set[str] = set()
LARGEST_FILE, LARGEST_TREE = 2**20, 8 * 2**20  # bytes; the tree travels to the machines that lend a GPU
MADE_OR_FETCHED = tuple(".safetensors .h5 .hdf5 .pt .pth .bin .ckpt .onnx .gguf .npy .npz .pkl .arrow .parquet .o .a .so .gch .whl .deb .pyc .zip .tar .tgz "
                        ".gz .bz2 .xz .zst .7z".split())


def tracked(*suffixes):
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listing.stdout.split() if name.endswith(suffixes) and (ROOT / name).exists()]


SOURCES = tracked(".cpp", ".h", ".cu", ".cuh")


def test_a_folder_includes_only_folders_to_its_left():
    wrong = []
    for name in SOURCES:
        folder = name.split("/")[0]
        if folder not in LAYERS:
            continue
        for include in re.findall(r'^\s*#include "([^"]+)"', (ROOT / name).read_text(), re.M):
            target = include.split("/")[0]
            if target not in LAYERS:
                wrong.append(f"{name}: {include}: write the path from the repository's root")
            elif LAYERS.index(target) > LAYERS.index(folder):
                wrong.append(f"{name} includes {include}")
    assert not wrong, "\n".join(wrong)
    assert len(SOURCES) > 10


def test_recipes_and_datasets_know_no_torch():
    pattern = re.compile(r"#include [<\"](torch|ATen|c10)/")
    wrong = [name for name in SOURCES if name.startswith(("recipes/", "datasets/")) and pattern.search((ROOT / name).read_text())]
    assert not wrong, wrong


def test_models_never_mention_ranks():
    pattern = re.compile(r'#include "parallel/(communicator|mesh|mpi|nccl|replicate)|\brank\(\)|MPI_')
    wrong = [name for name in SOURCES if name.startswith(("trainer/models/", "trainer/blocks/")) and pattern.search((ROOT / name).read_text())]
    assert not wrong, wrong


def test_files_are_short():
    long = [f"{name}: {lines} lines" for name in SOURCES if name not in LONG_FILES
            and (lines := (ROOT / name).read_text().count("\n")) > MAX_LINES]
    assert not long, "\n".join(long)


def test_sources_are_formatted():
    files = [name for name in SOURCES if not name.endswith((".cu", ".cuh"))]
    run = subprocess.run(["clang-format", "--dry-run", "-Werror", *files], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]


def committed():
    """{name: bytes} of what git tracks."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    sizes = {name: (ROOT / name).lstat().st_size for name in listing.stdout.split("\0") if name and (ROOT / name).exists()}
    assert len(sizes) > 100
    return sizes


def test_no_tracked_file_is_large():
    wrong = [f"{name}: {size} bytes" for name, size in committed().items() if size > LARGEST_FILE]
    assert not wrong, "\n".join(wrong)


def test_nothing_that_is_made_or_fetched_is_tracked():
    wrong = [name for name in committed() if name.endswith(MADE_OR_FETCHED) or ".so." in name]
    assert not wrong, "\n".join(wrong)


def test_no_tracked_file_is_ignored():
    listing = subprocess.run(["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not listing.stdout, listing.stdout


def test_the_tracked_tree_is_small():
    assert sum(committed().values()) < LARGEST_TREE


def test_texts_name_no_machine():
    pattern = re.compile(r"/work/|/root/|/home/\w+/|pypi\.org|deb\.debian\.org")
    me = "tests/rules/test_rules.py"
    wrong = [name for name in tracked(".cpp", ".h", ".md", ".yaml", ".py", ".txt", ".cmake", ".sbatch") if name != me
             and pattern.search((ROOT / name).read_text())]
    assert not wrong, wrong


def test_scripts_are_executable_and_parse():
    scripts = ["launch/setup", "launch/build", "launch/quickstart", "tests/run", ".ci/run"]
    for name in scripts:
        path = ROOT / name
        assert path.stat().st_mode & 0o111, f"{name} is not executable"
        assert subprocess.run(["bash", "-n", path]).returncode == 0, name
