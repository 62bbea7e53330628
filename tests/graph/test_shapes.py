"""Shapes and paddings against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from research.graph.ir import BINARY, Node, Op, Padding
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
    mean = Node("mean", ("x",), "y", axes=(1, 2))
    assert output_shape(mean, ((1, 4, 5, 6),), (1, 6)) == (1, 6)
    assert output_shape(mean, ((1, 4, 5, 6),), (1, 1, 1, 6)) == (1, 1, 1, 6)
    assert output_shape(Node("reshape", ("x",), "y"), ((1, 4, 6),), (1, 24)) == (1, 24)
    cut = Node("slice", ("x",), "y", spans=((0, 1), (5, -2)))
    assert output_shape(cut, ((1, 6),), (1, 3)) == (1, 3)
    resize = Node("resize", ("x",), "y", mode="nearest")
    assert output_shape(resize, ((1, 2, 3, 4),), (1, 7, 8, 4)) == (1, 7, 8, 4)
    spread = Node("transpose_conv", ("x",), "y", "k", (3, 3, 4, 5), strides=(2, 2))
    assert output_shape(spread, ((1, 2, 3, 4),), (1, 5, 7, 5)) == (1, 5, 7, 5)


@given(st.sampled_from(sorted(BINARY)), st.sets(st.integers(0, 3)), st.integers(0, 3))
def test_two_operands_broadcast_as_in_numpy(op: Op, ones: set[int], dropped: int) -> None:
    whole = (1, 4, 5, 6)
    part = tuple(1 if i in ones else s for i, s in enumerate(whole))[dropped:]
    for inputs in ((whole, part), (part, whole)):
        assert output_shape(Node(op, ("x", "z"), "y"), inputs, ()) == np.broadcast_shapes(*inputs)


def test_shapes_that_follow_from_the_inputs() -> None:
    image = (1, 4, 6, 8)
    for node, inputs, shape in (
        (Node("constant", (), "y", "k", (2, 3)), (), (2, 3)),
        (Node("concat", ("x", "z"), "y", axis=3), ((1, 2, 2, 3), (1, 2, 2, 5)), (1, 2, 2, 8)),
        (Node("conv", ("x",), "y", "k", (3, 3, 4, 6), padding="SAME"), (image,), (1, 4, 6, 6)),  # 2 groups
        (Node("depthwise", ("x",), "y", "k", (3, 3, 1, 16)), (image,), (1, 2, 4, 16)),
        (Node("dense", ("x",), "y", "k", (8, 3)), (image,), (1, 4, 6, 3)),
        (Node("matmul", ("x", "z"), "y"), (image, (8, 3)), (1, 4, 6, 3)),
        (Node("max_pool", ("x",), "y", window=(2, 2), strides=(2, 2)), (image,), (1, 2, 3, 8)),
        (Node("transpose", ("x",), "y", axes=(0, 3, 1, 2)), (image,), (1, 8, 4, 6)),
        (Node("pad", ("x",), "y", spans=((0, 0), (1, 2), (0, 0), (0, 1))), (image,), (1, 7, 6, 9)),
        (Node("depth_to_space", ("x",), "y", window=(2, 2)), (image,), (1, 8, 12, 2)),
        (Node("softmax", ("x",), "y"), (image,), image),
    ):
        assert output_shape(node, inputs, ()) == shape, node.op


IMAGE = (1, 9, 9, 3)


@pytest.mark.parametrize(
    ("node", "inputs", "says"),
    [
        (Node("conv", ("x",), "y", "k", (3, 3, 1, 2)), ((1, 9),), r"\[N, H, W, C\]"),
        (Node("conv", ("x",), "y", "k", (3, 3, 2, 2)), (IMAGE,), "3 input channels"),
        (Node("conv", ("x",), "y", "k", (3, 3)), (IMAGE,), "rank 4"),
        (Node("conv", ("x", "k"), "y", None, (1, 1, 3, 2)), (IMAGE, (1, 1, 3, 3)), "as its kernel"),
        (Node("depthwise", ("x",), "y", "k", (3, 3, 1, 2)), (IMAGE,), "3 input channels"),
        (Node("transpose_conv", ("x",), "y", "k", (3, 3, 2, 2)), (IMAGE,), "3 input channels"),
        (Node("dense", ("x",), "y", "k", (8, 2)), ((1, 9),), "does not fit"),
        (Node("matmul", ("x", "z"), "y"), ((1, 9), (8, 2)), "does not fit"),
        (Node("add", ("x", "z"), "y"), ((1, 9), (1, 8)), "do not broadcast"),
        (Node("mean", ("x",), "y", axes=(2,)), ((1, 9),), "cannot reduce"),
        (Node("concat", ("x", "z"), "y", axis=1), ((1, 9, 2), (1, 8, 3)), "differ beside axis 1"),
        (Node("concat", ("x",), "y", axis=2), ((1, 9),), "not one of"),
        (Node("reshape", ("x",), "y"), ((1, 9),), "differ in size"),
        (Node("transpose", ("x",), "y", axes=(0, 0)), ((1, 9),), "does not permute"),
        (Node("pad", ("x",), "y", spans=((0, 0), (-1, 0))), ((1, 9),), "do not fit"),
        (Node("slice", ("x",), "y", spans=((0, 1), (0, 1))), ((1, 9),), "cannot cut"),
        (Node("resize", ("x",), "y", mode="cubic"), (IMAGE,), r"\[N, H, W, C\]"),
        (Node("depth_to_space", ("x",), "y", window=(2, 2)), (IMAGE,), "blocks"),
        (Node("add", ("x",), "y"), ((1, 9),), "takes 2 input"),
        (Node("concat", (), "y"), (), "no input"),
        (Node("tanh", ("x", "z"), "y"), ((1, 9), (1, 9)), r"takes 1 input\(s\), got 2"),
    ],
)
def test_shapes_that_do_not_fit(node: Node, inputs: tuple[tuple[int, ...], ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        output_shape(node, inputs, (1, 10))
