"""The bench of training speed: fair sides, verdicts on intervals, and a clear word where PyTorch is missing."""

import numpy as np
import pytest

from research.bench import train_speed
from research.bench.train_speed import failures, interval, measure, network
from tests.nets.samples import SMALL


def test_an_interval_lies_about_the_median_and_tightens() -> None:
    rng = np.random.default_rng(0)
    few, many = (interval(rng.normal(2.0, 0.2, count).tolist()) for count in (9, 400))
    for mid, low, high in (few, many):
        assert low < mid < high
        assert low < 2.0 < high
    assert many[2] - many[1] < few[2] - few[1]


def test_the_lower_end_decides() -> None:
    row = {"size_px": 64, "times_torch": (1.1, 0.99, 1.2), "times_flax": (5.0, 4.1, 6.0)}
    (said,) = failures([row])
    assert "64 px: 1.10x torch (0.99 to 1.20), wanted 1x" in said
    assert failures([row | {"times_torch": (1.1, 1.01, 1.2)}]) == []
    assert "not installed" in failures([{"size_px": 64, "times_flax": (5.0, 4.1, 6.0)}])[0]


def test_both_sides_are_timed_on_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_speed, "network", lambda size_px: SMALL)
    monkeypatch.setattr(train_speed, "BATCH", 2)
    found = measure(SMALL.size_px, 2, with_torch=False)
    assert found["ours_images_per_s"] > 0
    assert found["flax_images_per_s"] > 0
    assert "torch_images_per_s" not in found
    assert len(found["times_flax"]) == 3


def test_the_network_is_the_size_it_says() -> None:
    assert 320_000 < train_speed._count(network(64)) < 345_000
