"""Process-wide settings of a run: the persistent compilation cache, where it lies, and how memory is kept."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import jax

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)
_TOP_PAD_BYTES = 64 << 20


def prepare_runtime() -> None:
    """Turns the persistent compilation cache on (`JAX_COMPILATION_CACHE_DIR` or `.cache/jax`); safe to call twice."""
    keep_memory()
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", ".cache/jax")).absolute()
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_memory() -> bool:
    """Lets the process keep freed memory; False where there is no glibc.

    XLA for CPUs asks for the buffers of a step anew each time. glibc maps such large ones afresh, so that a train step
    touches some 20,000 new pages, a fifth of its CPU time; kept on the heap they are touched once.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(option, value) == 1 for option, value in wanted)
