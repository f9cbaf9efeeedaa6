"""clang-tidy finds nothing in our sources (.clang-tidy says what it looks for)."""
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
OURS = r"/(recipes|parallel|datasets|trainer|launch)/.*\.(h|cpp)$"


def findings(unit, folder):
    """Warnings and errors of one compiled unit: a batch of sources, whose messages name the source itself."""
    command = ["clang-tidy", "-quiet", f"--config-file={ROOT}/.clang-tidy", "-p", folder, f"--header-filter={OURS}",
               "--extra-arg=-Wno-shadow", f"--extra-arg=-isystem{folder}/omp", unit]  # g++ sees to -Wshadow
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = sorted(set(re.findall(r"^.*(?:warning|error): .*$", run.stdout, re.MULTILINE)))
    return found or ([] if run.returncode == 0 else [f"{unit}: {run.stderr[-2000:]}"])


def test_clang_tidy_is_content(tmp_path):
    subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DTESSERA_CUDA=OFF", "-DTESSERA_UNITY=ON",
                    "-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON", "-DCCACHE=OFF"], check=True, capture_output=True)
    # Clang's own omp.h is a package that need not be there, and g++'s is not for clang.
    (tmp_path / "omp").mkdir()
    (tmp_path / "omp/omp.h").write_text("""extern "C" { void omp_set_num_threads(int); int omp_get_thread_num(); int omp_get_num_threads();
                                           int omp_get_max_threads(); int omp_in_parallel(); }""")
    units = [entry["file"] for entry in json.loads((tmp_path / "compile_commands.json").read_text())]
    # The loops are written with GCC's types for half precision.
    units = [unit for unit in units if "/tests/" not in unit and not unit.endswith("loops.cpp")]
    assert len(units) > 10
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [line for lines in pool.map(lambda unit: findings(unit, tmp_path), units) for line in lines]
    assert not found, "\n".join(found)


def test_a_mistake_is_found(tmp_path):
    source = tmp_path / "recipes/wrong.cpp"
    source.parent.mkdir()
    source.write_text("struct A { virtual ~A(); virtual void f(); };\nstruct B : A { void f(); };\n")
    (tmp_path / "compile_commands.json").write_text(json.dumps([{"directory": str(tmp_path), "file": str(source), "command": f"c++ -std=c++20 -c {source}"}]))
    assert any("modernize-use-override" in line for line in findings(str(source), tmp_path))
