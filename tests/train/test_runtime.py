"""The compilation cache: off unless prepared, where the environment says, left alone when it is set."""

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
