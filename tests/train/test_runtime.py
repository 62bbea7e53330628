"""The compilation cache: off unless prepared, where the environment says, left alone when it is set."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from research.train.runtime import prepare_runtime


@pytest.mark.parametrize("named", [True, False])
def test_cache_lies_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    if named:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    jax.config.update("jax_compilation_cache_dir", None)
    prepare_runtime()
    expected = tmp_path / "mine" if named else tmp_path / ".cache" / "jax"
    assert jax.config.values["jax_compilation_cache_dir"] == str(expected)


def test_a_cache_that_is_set_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = jax.config.values["jax_compilation_cache_dir"]
    assert before is not None
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    prepare_runtime()
    prepare_runtime()
    assert jax.config.values["jax_compilation_cache_dir"] == before


FAULTS = """
import resource, sys
import numpy as np
from research.train.runtime import keep_memory
kept = keep_memory() if sys.argv[1] == "kept" else False
def touch():
    np.ones(8 << 20)  # 64 MB, larger than any threshold of glibc's
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_kept_memory_is_not_mapped_again() -> None:
    found = {}
    for mode in ("kept", "freed"):
        done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        found[mode] = tuple(map(int, done.stdout.split()))
    assert found["kept"][0] == 1
    assert found["kept"][1] < 0.1 * found["freed"][1]
