"""Process-wide settings of a run: the persistent compilation cache, where it lies, and how memory is kept."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path
from typing import Any

import jax

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # of mallopt(3)
_TOP_PAD_BYTES, _HEAP_BYTES, _PAGE_BYTES = 64 << 20, 4 << 30, 2 << 20
_HUGE_PAGES = 14  # MADV_HUGEPAGE of madvise(2)


def prepare_runtime() -> None:
    """Turns the persistent compilation cache on (`JAX_COMPILATION_CACHE_DIR` or `.cache/jax`); safe to call twice."""
    keep_memory()
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", ".cache/jax")).absolute()
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_memory() -> bool:
    """Lets the process keep freed memory, on one heap of large pages; False where there is no glibc.

    XLA for CPUs asks for the buffers of a step anew each time. glibc maps such large ones afresh, and gives back whole
    the heaps of all threads but the first: a train step then touches some 50,000 new pages, two fifths of its time.
    Kept on one heap they are touched once, and on pages of 2 MB where the kernel gives them to those who ask
    (address lookups are another tenth). To be called before the first array is made; a second call does nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if getattr(libc, "mallopt", None) is None:
        return False
    return _keep_memory(libc)


@functools.cache
def _keep_memory(libc: Any) -> bool:
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _TOP_PAD_BYTES))
    if not all(libc.mallopt(option, value) == 1 for option, value in wanted):
        return False
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    heap = libc.malloc(_HEAP_BYTES)  # addresses only: pages come when they are touched
    if heap:
        first = -(-heap // _PAGE_BYTES) * _PAGE_BYTES
        libc.madvise(first, _HEAP_BYTES - _PAGE_BYTES, _HUGE_PAGES)  # advice: no error where it is not taken
        libc.free(heap)
    return True
