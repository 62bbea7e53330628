"""The small reader names operators as the exporter did, and refuses damage with one clear line."""

from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.npu.flatbuffer import operator_names
from research.npu.table import layer_names
from tests.npu.networks import hand_network


def test_names_are_those_of_the_graph() -> None:
    network = hand_network(0, False)
    assert operator_names(network.model) == layer_names(network.graph)


@pytest.mark.parametrize(
    ("junk", "message"),
    [
        (b"", "not a .tflite"),
        (b"hello", "not a .tflite"),
        (b"\0" * 200, "no TFL3 mark"),
        (b"\x10\0\0\0TFL3" + b"\xff" * 200, "damaged .tflite"),
        (b"\x10\0\0\0TFL3" + b"\0" * 200, "damaged .tflite"),
    ],
)
def test_junk_is_refused(junk: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        operator_names(junk)


def test_text_is_no_model() -> None:
    with pytest.raises(TypeError, match="bytes"):
        operator_names(cast(bytes, "TFL3"))


@given(st.integers(0, 10_000))
def test_truncation_never_passes_silently(seed: int) -> None:
    model = hand_network(0, False).model
    cut = int(np.random.default_rng(seed).integers(0, len(model) - 64))
    with pytest.raises(ValueError, match=r"\.tflite"):
        operator_names(model[:cut])
