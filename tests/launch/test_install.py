"""cmake --install makes a folder that can be moved, also where only the program's target was asked for."""
import shutil
import subprocess

import runs

PLUGIN = "libtessera_cuda.so"
has_plugin = (runs.BUILD / PLUGIN).exists()


def test_the_gpu_plugin_is_made_with_the_program():
    inputs = subprocess.run(["ninja", "-C", runs.BUILD, "-t", "inputs", "tessera"], capture_output=True, text=True, check=True).stdout.split()
    assert "libtessera_trainer.a" in inputs and (PLUGIN in inputs) == has_plugin


def test_a_moved_folder_works(tmp_path):
    try:
        subprocess.run(["cmake", "--install", runs.BUILD, "--prefix", tmp_path / "there"], check=True, capture_output=True)
        (tmp_path / "there").rename(tmp_path / "here")
        done = subprocess.run([tmp_path / "here/bin/tessera", "recipes", "list"], capture_output=True, text=True, check=True, cwd=tmp_path, env={})
        assert "bert/pretrain-mini" in done.stdout
        libraries = subprocess.run(["ldd", tmp_path / "here/bin/tessera"], capture_output=True, text=True, check=True).stdout
        assert f"{tmp_path}/here/bin/../lib/libtorch_cpu.so" in libraries and "not found" not in libraries, libraries
        assert (tmp_path / "here/lib" / PLUGIN).exists() == has_plugin
    finally:
        shutil.rmtree(tmp_path)  # half a GB
