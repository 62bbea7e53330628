"""Weight buffers of one operation: what pays, and what slices leave for the next one."""

import numpy as np

from research.npu.chip import U85_128
from research.npu.exact_buffers import Buffers, buffered
from research.npu.exact_weights import best_format
from research.npu.operation import FeatureMap, Operation, Weights


def _run(channels: int, pixels: int, slack: int, *, enabled: bool = True, first: bool = False) -> Buffers:
    values = np.random.default_rng(0).integers(-90, 90, (1, 1, 64, channels)).astype(np.int8)
    ifm, ofm = (FeatureMap((pixels, pixels, c)) for c in (64, channels))
    op = Operation("x", "Conv2D", ifm, ofm, weights=Weights(values, values.shape))
    choice = best_format(op, U85_128)
    return buffered(op, choice, U85_128, slack=slack, first=first, starts=first, enabled=enabled)


def test_weights_that_are_read_again_and_again_are_buffered() -> None:
    found = _run(128, 32, slack=1000)
    assert found.encoded is not None
    assert found.buffering == "Double"
    assert found.ahead
    assert len(found.parts) == 2
    assert max(found.encoded.ranges) == max(found.parts)
    assert found.encoded.slices[0] == 0
    assert found.encoded.slices[-1] == 128
    assert _run(128, 32, slack=10**6).buffering == "Single"
    assert not _run(128, 32, slack=0, first=True).ahead


def test_weights_that_are_read_once_stay_in_flash() -> None:
    assert _run(128, 4, slack=0).buffering == "None"
    off = _run(128, 32, slack=1000, enabled=False)
    assert (off.buffering, off.parts) == ("None", ())
    assert off.slack > 0
