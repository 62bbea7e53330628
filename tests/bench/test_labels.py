"""Verdicts from a folder are those of the compiler; switches the compiler would ignore are refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from research.bench.labels import label, labels, shown
from research.npu import U55_128, U85_128, referee
from tests.npu.networks import hand_network

MODEL = hand_network(0, False).model


def test_a_kept_verdict_is_the_compilers_and_is_read_again(tmp_path: Path) -> None:
    said = referee(MODEL, U85_128)
    assert label(MODEL, U85_128) == said
    assert label(MODEL, U85_128, cache=tmp_path) == said
    (kept,) = tmp_path.rglob("*.json.gz")
    before = kept.stat().st_mtime_ns
    assert label(MODEL, U85_128, cache=tmp_path) == said
    assert kept.stat().st_mtime_ns == before


def test_another_chip_or_switch_is_another_verdict(tmp_path: Path) -> None:
    cycles = {
        label(MODEL, chip, switches, tmp_path).cycles
        for chip, switches in ((U85_128, ()), (U55_128, ()), (U85_128, ("WeightBuffering",)))
    }
    assert len(cycles) == len(list(tmp_path.rglob("*.json.gz"))) == 3


def test_an_unknown_switch_is_refused_before_anything_is_compiled() -> None:
    with pytest.raises(ValueError, match="did you mean 'WeightBuffering'"):
        labels([], U85_128, "networks", ("WeigthBuffering",))


def test_results_come_in_order_with_and_without_other_workers() -> None:
    with ThreadPoolExecutor(2) as pool:
        for found in (shown(str, range(20), "x"), shown(str, range(20), "x", pool)):
            assert list(found) == [str(i) for i in range(20)]
