"""Data sets prepared once with TensorFlow Datasets, without TensorFlow: whole or not at all, clear about damage."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

INFO = "dataset_info.json"


class LocalInfo(tfds.core.DatasetInfo):
    """Data set information that is never looked up in a bucket on the network."""

    def initialize_from_bucket(self) -> None:
        """Does nothing."""


def prepare_once(final: Path, root: Path, builder_in: Callable[[str], Any]) -> Path:
    """Writes the set of `builder_in(folder)` aside and moves it to `final`, below `root`, whole; returns `final`.

    A set that is there already is left as it is. An interrupted preparation leaves no set. OSError where `root`
    cannot be written, and whatever the builder raises.
    """
    if (final / INFO).is_file():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".preparing_", dir=root))
    try:
        tfds.display_progress_bar(False)  # ours is shown instead
        with contextlib.redirect_stdout(io.StringIO()):
            builder = builder_in(str(aside))
            builder.download_and_prepare()
        shutil.rmtree(final, ignore_errors=True)
        try:
            os.rename(builder.data_dir, final)
        except OSError:
            if not (final / INFO).is_file():  # else another process was quicker: the same set
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final


def open_split(folder: Path, split: str, undecoded: Sequence[str], again: str) -> Any:
    """Random access to the rows of a prepared split; the features `undecoded` come as the bytes of their files.

    `again` says in errors how to prepare the set. FileNotFoundError where nothing is prepared or a file is gone,
    ValueError for a split that is not there or a set that is damaged.
    """
    if not (folder / INFO).is_file():
        raise FileNotFoundError(f"no prepared data set at {folder}: {again}")
    with explained(folder, again):
        builder = tfds.builder_from_directory(folder)
        if split not in builder.info.splits:
            raise ValueError(f"no split {split!r}, only {', '.join(builder.info.splits)}")
        found = builder.info.splits[split]
        missing = [name for name in found.filenames if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"data set lacks the file {missing[0]}: delete {folder} and {again}")
        source = builder.as_data_source(
            split=split, decoders={n: tfds.decode.SkipDecoding() for n in undecoded}
        )
        if len(source) != found.num_examples:
            raise ValueError(f"holds {len(source)} of {found.num_examples} examples")
    return source


@contextlib.contextmanager
def explained(folder: Path, again: str) -> Any:
    """Turns what array_record, json and image decoders raise, each its own kind, into one ValueError of one line."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"data set at {folder} is damaged ({reason}): delete it and {again}") from error
