"""Shapes and paddings against XLA's own."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from research.graph.ir import Node, Padding
from research.graph.shapes import output_shape, window_pads, window_size


@given(
    st.integers(1, 40),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["SAME", "VALID"]),
)
def test_windows_are_those_of_xla(
    size: int, window: int, stride: int, dilation: int, padding: Padding
) -> None:
    reach = (window - 1) * dilation + 1
    if padding == "VALID" and size < reach:
        return
    assert window_pads(size, window, stride, dilation, padding) == lax.padtype_to_pads(
        (size,), (reach,), (stride,), padding
    )[0]  # fmt: skip
    image, kernel = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 1, size), (1, 1, window)))
    real = jax.eval_shape(
        lambda x, k: lax.conv_general_dilated(x, k, (stride,), padding, rhs_dilation=(dilation,)),
        image,
        kernel,
    )
    assert window_size(size, window, stride, dilation, padding) == real.shape[2]


def test_shapes_that_the_operation_leaves_open() -> None:
    mean = Node("mean", ("x",), "y")
    assert output_shape(mean, ((1, 4, 5, 6),), (1, 6)) == (1, 6)
    assert output_shape(mean, ((1, 4, 5, 6),), (1, 1, 1, 6)) == (1, 1, 1, 6)
    assert output_shape(Node("reshape", ("x",), "y"), ((1, 4, 6),), (1, 24)) == (1, 24)
    joined = Node("concat", ("x", "z"), "y", axis=3)
    assert output_shape(joined, ((1, 2, 2, 3), (1, 2, 2, 5)), ()) == (1, 2, 2, 8)


@pytest.mark.parametrize(
    ("node", "inputs", "says"),
    [
        (Node("conv", ("x",), "y", "k", (3, 3, 1, 2)), ((1, 9),), r"\[N, H, W, C\]"),
        (Node("depthwise", ("x",), "y", "k", (3, 3, 1, 2)), ((1, 9, 9, 3),), "channel count"),
        (Node("dense", ("x",), "y", "k", (8, 2)), ((1, 9),), "9 features"),
        (Node("add", ("x", "z"), "y"), ((1, 9), (1, 8)), "one shape"),
        (Node("concat", ("x", "z"), "y", axis=1), ((1, 9, 2), (1, 8, 3)), "differ beside axis 1"),
        (Node("concat", ("x",), "y", axis=0), ((1, 9),), "after the batch"),
        (Node("reshape", ("x",), "y"), ((1, 9),), "differ in size"),
        (Node("add", (), "y"), (), "no input"),
    ],
)
def test_shapes_that_do_not_fit(node: Node, inputs: tuple[tuple[int, ...], ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        output_shape(node, inputs, (1, 10))
