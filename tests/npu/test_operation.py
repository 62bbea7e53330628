"""What is fused with an operation is part of what it stores; what is chained is not."""

import dataclasses

import numpy as np

from research.npu.operation import FeatureMap, Operation, Rider, Weights

SMALL, WIDE = FeatureMap((4, 4, 16)), FeatureMap((4, 4, 16), 32)
CONV = Operation("a", "Conv2D", SMALL, SMALL)


def test_fused_riders_change_what_is_stored_and_chained_ones_do_not() -> None:
    assert CONV.stored == SMALL
    assert CONV.alone is CONV
    looked_up = dataclasses.replace(CONV, riders=(Rider("LUT", WIDE), Rider("Add", SMALL, other=SMALL)))
    assert looked_up.stored == WIDE
    assert looked_up.depth == 16
    assert looked_up.alone == dataclasses.replace(CONV, ofm=WIDE)
    assert dataclasses.replace(CONV, riders=(Rider("Add", WIDE, other=SMALL),)).stored == SMALL


def test_operations_are_keys_and_weights_are_told_apart_by_identity() -> None:
    values = np.zeros((1, 1, 16, 16), np.int8)
    one, two = Weights(values, values.shape), Weights(values, values.shape)
    assert one != two
    assert len({dataclasses.replace(CONV, weights=w) for w in (one, two, one)}) == 2
    assert SMALL.elements == 256
