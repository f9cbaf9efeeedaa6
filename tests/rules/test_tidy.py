"""clang-tidy finds nothing in our sources (.clang-tidy says what it looks for): in what changed lately, and, slowly, in all of them."""
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("recipes/", "parallel/", "datasets/", "trainer/", "launch/")
OURS = r"/(recipes|parallel|datasets|trainer|launch)/.*\.(h|cpp)$"
SECONDS = 40  # after which no further batch of changed sources is begun; one takes up to a minute


def git(*arguments, root=ROOT):
    """Lines of output; none where git fails."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.split("\n")[:-1]


def changed(root=ROOT):
    """Our sources that changed, the latest first: since the branch left main; on main itself in the day before the last commit;
    all of them where the history does not go back so far."""
    head = git("rev-parse", "HEAD", root=root)
    bases = [git("merge-base", "HEAD", other, root=root) for other in ("@{upstream}", "origin/HEAD", "main")]
    base = next((found for found in bases if found and found != head), None)
    if not base:
        a_day_before = int(git("log", "-1", "--format=%ct", root=root)[0]) - 24 * 3600
        base = git("rev-list", "-1", f"--before={a_day_before}", "HEAD", root=root)
    if base:
        uncommitted = git("diff", "--name-only", "HEAD", root=root) + git("ls-files", "-o", "--exclude-standard", root=root)
        names = uncommitted + git("log", "--format=", "--name-only", f"{base[0]}..HEAD", root=root)
    else:
        names = git("ls-files", root=root)
    return [name for name in dict.fromkeys(names) if name.startswith(FOLDERS) and name.endswith((".cpp", ".h")) and (root / name).exists()]


def sources_for(names, sources, root=ROOT):
    """The sources that show the files: a source itself; for a header the source of its name, or else the first of its folder that includes it."""
    chosen = {}
    for name in names:
        if name.endswith(".h"):
            users = (source for source in sources if source.startswith(name.split("/")[0] + "/") and f'#include "{name}"' in (root / source).read_text())
            twin = name.removesuffix(".h") + ".cpp"
            name = twin if twin in sources else next(users, None)
        if name in sources:
            chosen[name] = None
    return list(chosen)


def batches(folder):
    """{file of a batch: paths of its sources}, of the programs but not the tests; how to compile them is left in `folder`."""
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DTESSERA_CUDA=OFF", "-DTESSERA_UNITY=ON",
                    "-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON", "-DCCACHE=OFF"], check=True, capture_output=True)
    # Clang's own omp.h is a package that need not be there, and g++'s is not for clang.
    (folder / "omp").mkdir()
    (folder / "omp/omp.h").write_text("""extern "C" { void omp_set_num_threads(int); int omp_get_thread_num(); int omp_get_num_threads();
                                         int omp_get_max_threads(); int omp_in_parallel(); }""")
    units = [entry["file"] for entry in json.loads((folder / "compile_commands.json").read_text())]
    # The loops are written with GCC's types for half precision; the kernels in cuda/ are for nvcc.
    units = [unit for unit in units if "/tests/" not in unit and "/cuda/" not in unit and not unit.endswith("loops.cpp")]
    assert len(units) > 10
    return {unit: re.findall(rf'^#include "{re.escape(str(ROOT))}/(.*)"', pathlib.Path(unit).read_text(), re.MULTILINE) for unit in units}


def only(sources, batch_sources):
    """The batches in which the sources are, in their order, each cut down to them."""
    chosen = {}
    for source in sources:
        batch = next(batch for batch, own in batch_sources.items() if source in own)
        chosen.setdefault(batch, []).append(source)
    for batch, own in chosen.items():
        pathlib.Path(batch).write_text("".join(f'#include "{ROOT}/{source}"\n' for source in own))
    return chosen


def findings(unit, folder):
    """Warnings and errors of one compiled unit; those of a batch of sources name the source itself."""
    command = ["clang-tidy", "-quiet", f"--config-file={ROOT}/.clang-tidy", "-p", folder, f"--header-filter={OURS}",
               "--extra-arg=-Wno-shadow", f"--extra-arg=-isystem{folder}/omp", unit]  # g++ sees to -Wshadow
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = sorted(set(re.findall(r"^.*(?:warning|error): .*$", run.stdout, re.MULTILINE)))
    return found or ([] if run.returncode == 0 else [f"{unit}: {run.stderr[-2000:]}"])


def findings_of_all(units, folder, seconds=None):
    """What is found, and the units that were not begun within so many seconds."""
    end = time.monotonic() + (seconds or float("inf"))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda unit: findings(unit, folder) if time.monotonic() < end else None, units))
    return [line for lines in found for line in lines or []], [unit for unit, lines in zip(units, found) if lines is None]


def test_clang_tidy_is_content_with_what_changed(tmp_path, capsys):
    all_batches = batches(tmp_path)
    sources = sources_for(changed(), [source for own in all_batches.values() for source in own])
    cut_down = only(sources, all_batches)
    found, left = findings_of_all(cut_down, tmp_path, SECONDS)
    left = [source for batch in left for source in cut_down[batch]]
    with capsys.disabled():  # tests/count.py shows it
        print(f"\nnote: clang-tidy saw {len(sources) - len(left)} of {len(sources)} sources that changed lately")
        if left:
            print("note: left to `tests/run --slow -R tidy`:", *left)
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_clang_tidy_is_content(tmp_path):
    found, _ = findings_of_all(batches(tmp_path), tmp_path)
    assert not found, "\n".join(found)


def test_a_mistake_is_found(tmp_path):
    source = tmp_path / "recipes/wrong.cpp"
    source.parent.mkdir()
    source.write_text("struct A { virtual ~A(); virtual void f(); };\nstruct B : A { void f(); };\n")
    (tmp_path / "compile_commands.json").write_text(json.dumps([{"directory": str(tmp_path), "file": str(source), "command": f"c++ -std=c++20 -c {source}"}]))
    found, left = findings_of_all([str(source)], tmp_path, 60)
    assert any("modernize-use-override" in line for line in found) and not left
    assert findings_of_all([str(source)], tmp_path, -1) == ([], [str(source)])


@pytest.fixture
def repository(tmp_path):
    """A function that commits files, with a date in hours."""
    git("init", "-q", "-b", "main", root=tmp_path)

    def commit(hours, **files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        date = f"{1_700_000_000 + hours * 3600} +0000"
        git("add", "-A", root=tmp_path)
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "-m", "x", "--date", date], cwd=tmp_path, check=True,
                       env={**os.environ, "GIT_COMMITTER_DATE": date})
        return tmp_path

    return commit


def test_what_changed_is_known(repository):
    root = repository(0, recipes__a_cpp="1", recipes__b_h="1", docs__c_h="1")
    assert changed(root) == ["recipes/a.cpp", "recipes/b.h"]  # nothing older to compare with
    repository(40, recipes__d_cpp="1")
    repository(41, recipes__a_cpp="2", docs__c_h="2")
    assert changed(root) == ["recipes/a.cpp", "recipes/d.cpp"]
    git("checkout", "-q", "-b", "mine", root=root)
    repository(42, trainer__e_h="1")
    assert changed(root) == ["trainer/e.h"]
    (root / "recipes/a.cpp").write_text("3")
    (root / "launch").mkdir()
    (root / "launch/new.cpp").write_text("1")
    (root / "trainer/e.h").unlink()
    assert changed(root) == ["recipes/a.cpp", "launch/new.cpp"]


def test_a_header_is_seen_through_a_source(tmp_path):
    for name, text in {"trainer/a.cpp": "", "trainer/a.h": "", "trainer/b.h": "", "trainer/c.cpp": '#include "trainer/b.h"', "launch/d.cpp": '#include "trainer/b.h"',
                       "trainer/none.h": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    sources = ["launch/d.cpp", "trainer/a.cpp", "trainer/c.cpp"]
    assert sources_for(["trainer/a.h", "trainer/b.h", "trainer/none.h", "trainer/a.cpp", "trainer/gone.cpp"], sources, tmp_path) == ["trainer/a.cpp", "trainer/c.cpp"]
