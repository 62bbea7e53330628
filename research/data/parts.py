"""Arrays that take long to make, kept on disk in parts: each part whole or absent, work goes on where it stopped."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

Arrays = dict[str, np.ndarray]


def parts(folder: Path, count: int, make: Callable[[int, int], Arrays], size: int, title: str = "") -> Arrays:
    """The arrays of `make(start, stop)` for `count` rows in parts of `size`, each made once and kept in `folder`.

    Parts are written whole, so an interrupted run loses one at most. A progress bar shows on a terminal.
    ValueError for a damaged part, naming the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, size)
    missing = [start for start in starts if not _part(folder, start).is_file()]
    for start in tqdm(missing, title, unit="part", disable=not sys.stderr.isatty(), leave=False):
        found: Any = make(start, min(start + size, count))
        aside = _part(folder, start).with_suffix(f".{os.getpid()}")
        with aside.open("wb") as file:
            np.savez(file, **found)
        aside.replace(_part(folder, start))
    return joined([_load(_part(folder, start)) for start in starts])


def joined(found: Sequence[Arrays]) -> Arrays:
    """Parts one after another, array by array."""
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _part(folder: Path, start: int) -> Path:
    return folder / f"{start:08d}.npz"


def _load(path: Path) -> Arrays:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}): delete it") from error
