"""Process-wide settings of a run: the persistent compilation cache and where it lies."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def prepare_runtime() -> None:
    """Turns the persistent compilation cache on (`JAX_COMPILATION_CACHE_DIR` or `.cache/jax`); safe to call twice."""
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", ".cache/jax")).absolute()
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
