"""Whole or not at all: sets that fail midway, that another process finishes first, or that do not decode."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from research.data.prepared import LocalInfo, explained, open_split, prepare_once


class Numbers(tfds.core.GeneratorBasedBuilder):
    """Three numbers; `before(i)` runs before row i."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, data_dir: str, before: Any = lambda i: None) -> None:
        self.before = before
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> Any:
        features = tfds.features.FeaturesDict({"x": tfds.features.Tensor(shape=(), dtype=np.int64)})
        return LocalInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> Any:
        return {"squares": self._generate_examples()}

    def _generate_examples(self) -> Any:
        for i in range(3):
            self.before(i)
            yield i, {"x": i * i}


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    final = prepare_once(tmp_path / "a" / "1.0.0", tmp_path, Numbers)
    source = open_split(final, "squares", [], "again")
    assert [int(source[i]["x"]) for i in range(len(source))] == [0, 1, 4]
    assert list(tmp_path.glob(".preparing*")) == []


def test_a_failure_midway_leaves_nothing(tmp_path: Path) -> None:
    def failing(i: int) -> None:
        if i == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        prepare_once(tmp_path / "a", tmp_path, lambda folder: Numbers(folder, failing))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    with pytest.raises(FileNotFoundError, match=r"no prepared data set at .*: do it again"):
        open_split(tmp_path / "a", "squares", [], "do it again")


def test_the_quicker_process_wins_and_the_slower_agrees(tmp_path: Path) -> None:
    final, raced = tmp_path / "a" / "1.0.0", []

    def race(i: int) -> None:
        if not raced:
            raced.append(prepare_once(final, tmp_path, Numbers))

    assert prepare_once(final, tmp_path, lambda folder: Numbers(folder, race)) == final
    assert len(open_split(final, "squares", [], "again")) == 3
    assert list(tmp_path.glob(".preparing*")) == []


def test_an_unknown_split_names_those_there_are(tmp_path: Path) -> None:
    final = prepare_once(tmp_path / "a" / "1.0.0", tmp_path, Numbers)
    with pytest.raises(ValueError, match="no split 'some', only squares"):
        open_split(final, "some", [], "again")


def test_errors_of_readers_become_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="is damaged \\(first\\): delete it and again") as found,
        explained(tmp_path, "again"),
    ):
        raise RuntimeError("first\nsecond")
    assert "\n" not in str(found.value)
