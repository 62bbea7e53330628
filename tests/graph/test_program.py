"""Integers of a tensor: nearest, halves away from zero, saturating; and what a program knows of its tensors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.ir import Graph, Node, Tensor
from research.graph.program import LIMITS, Affine, Program


def test_halves_go_away_from_zero_and_ends_saturate() -> None:
    given_values = np.array([0.5, -0.5, 1.5, -1.5, 0.49999997, 300.0, -300.0], np.float32)
    assert Affine(1.0, 0).quantise(given_values).tolist() == [1, -1, 2, -2, 0, 127, -128]
    assert Affine(1.0, 0, "uint8").quantise(given_values).tolist() == [1, 0, 2, 0, 0, 255, 0]
    assert Affine(0.5, 3).quantise(np.array([1.0])).tolist() == [5]


@given(
    st.sampled_from(sorted(LIMITS)),
    st.floats(2.0**-20, 1024.0, width=32),
    st.integers(-128, 127),
    st.integers(-(2**15), 2**15 - 1),
)
def test_integers_survive_the_way_through_real_numbers(
    dtype: str, scale: float, zero: int, value: int
) -> None:
    low, high = LIMITS[dtype]
    to = Affine(scale, {"int8": zero, "uint8": zero + 128, "int16": 0}[dtype], dtype)
    whole = np.array([np.clip(value, low, high)], dtype)
    assert to.quantise(to.real(whole)).tolist() == whole.tolist()
    assert to.quantise(to.real(whole)).dtype == np.dtype(dtype)


def test_a_tensor_without_scale_is_float() -> None:
    tensors = (Tensor("x", (1, 2)), Tensor("y", (1, 2)))
    graph = Graph((Node("quantize", ("x",), "y"),), tensors, ("x",), ("y",))
    program = Program(graph, {}, {"y": Affine(0.5, 0, "int16")})
    assert (program.dtype("x"), program.dtype("y")) == ("float32", "int16")
    with pytest.raises(KeyError, match="z"):
        program.dtype("z")
