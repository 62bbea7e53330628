"""The float interpreter against loops in numpy that know nothing of XLA, and against LiteRT where it is the law."""

from collections.abc import Callable
from typing import Any, get_args

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.graph.interpret import (
    apply_float,
    batched,
    cut,
    interpret_float,
    observe,
    resize_positions,
    site_values,
)
from research.graph.ir import WEIGHTED, Graph, Node, Op, Padding, Tensor, check
from research.graph.rewrite import fuse
from research.graph.runtime import run_raw
from research.graph.shapes import output_shape, window_pads
from research.graph.tflite import Writer
from research.graph.trace import trace
from research.graph.weights import Weights
from tests.graph.samples import inverted_residual

SIZES = st.sampled_from([4, 5, 7])
PADDINGS = st.sampled_from(["SAME", "VALID"])


def single(node: Node, shape: tuple[int, ...], recorded: tuple[int, ...] = ()) -> Graph:
    tensors = tuple(Tensor(name, shape) for name in dict.fromkeys(node.inputs))
    made = Tensor("y", output_shape(node, (shape,) * len(node.inputs), recorded))
    return Graph((node,), (*tensors, made), ("x",), ("y",))


def windows(
    x: np.ndarray, window: int, stride: int, padding: Padding, reach: int = 1
) -> list[list[np.ndarray]]:
    """The pixels under each window of one image [H, W, C], `reach` apart: blocks with NaN outside the image."""
    size, span = x.shape[0], (window - 1) * reach + 1
    count = -(-size // stride) if padding == "SAME" else (size - span) // stride + 1
    before = max((count - 1) * stride + span - size, 0) // 2 if padding == "SAME" else 0
    edge = 2 * span + before
    wide = np.full((size + 2 * edge, size + 2 * edge, x.shape[2]), np.nan)
    wide[edge : edge + size, edge : edge + size] = x
    starts = [edge - before + i * stride for i in range(count)]
    return [[wide[r : r + span : reach, c : c + span : reach] for c in starts] for r in starts]


@settings(max_examples=20)
@given(
    st.sampled_from([(6, 3), (6, 1), (3, 2), (12, 1)]), SIZES, st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]),
    st.sampled_from([1, 2]), PADDINGS,
)  # fmt: skip
def test_convolutions(
    layout: tuple[int, int], size: int, window: int, stride: int, reach: int, padding: Padding
) -> None:
    """`layout`: output channels, input channels of a group; 6 input channels (depthwise: 1 of a group of 1)."""
    out, inner = layout
    op: Op = "depthwise" if inner == 1 else "conv"
    channels = 6
    if padding == "VALID" and size < (window - 1) * reach + 1:
        return
    rng, groups = np.random.default_rng(size), channels // inner
    shape = (window, window, inner, out)
    params = {"k": rng.normal(size=shape), "b": rng.normal(size=out)}
    node = Node(op, ("x",), "y", "k", shape, "b", "relu", (stride, stride), padding, (reach, reach))
    x = rng.normal(size=(1, size, size, channels))

    def one(block: np.ndarray) -> np.ndarray:
        parts = zip(np.split(np.nan_to_num(block), groups, 2), np.split(params["k"], groups, 3), strict=True)
        sums = np.concatenate([np.einsum("ijc,ijco->o", part, kernel) for part, kernel in parts])
        return np.maximum(sums + params["b"], 0)

    wanted = [[one(w) for w in row] for row in windows(x[0], window, stride, padding, reach)]
    got = interpret_float(single(node, x.shape), params, x)
    np.testing.assert_allclose(got[0], wanted, rtol=1e-4, atol=1e-5)


@settings(max_examples=15)
@given(st.sampled_from([2, 3, 5]), st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 2, 3]), PADDINGS)
def test_transposed_convolutions_scatter(size: int, window: int, stride: int, padding: Padding) -> None:
    rng = np.random.default_rng(size)
    out = size * stride if padding == "SAME" else (size - 1) * stride + window
    before, _ = window_pads(out, window, stride, 1, padding)
    x, kernel = rng.normal(size=(1, size, size, 2)), rng.normal(size=(window, window, 2, 3))
    wanted = np.zeros((out + 2 * window + stride, out + 2 * window + stride, 3))
    for i, j in np.ndindex(size, size):
        r, c = i * stride - before + window, j * stride - before + window
        wanted[r : r + window, c : c + window] += np.einsum("c,ijco->ijo", x[0, i, j], kernel)
    node = Node("transpose_conv", ("x",), "y", "k", kernel.shape, strides=(stride, stride), padding=padding)
    got = interpret_float(single(node, x.shape, (1, out, out, 3)), {"k": kernel}, x)[0]
    np.testing.assert_allclose(
        got, wanted[window : window + out, window : window + out], rtol=1e-4, atol=1e-5
    )


@settings(max_examples=10)
@given(SIZES, st.sampled_from([2, 3]), st.sampled_from([1, 2]), PADDINGS)
def test_pools_ignore_the_padding(size: int, window: int, stride: int, padding: Padding) -> None:
    x = np.random.default_rng(size).normal(size=(1, size, size, 2))
    blocks = windows(x[0], window, stride, padding)
    for op, reduce in (("avg_pool", np.nanmean), ("max_pool", np.nanmax)):
        node = Node(op, ("x",), "y", strides=(stride, stride), padding=padding, window=(window, window))
        wanted = [[reduce(w, axis=(0, 1)) for w in row] for row in blocks]
        np.testing.assert_allclose(
            interpret_float(single(node, x.shape), {}, x)[0], wanted, rtol=1e-5, atol=1e-6
        )


X, Z = np.arange(24.0).reshape(2, 2, 2, 3) - 7.3, np.array([3.0, -2.0, 0.5])
KERNEL = np.arange(6.0).reshape(3, 2) - 2
ONE = Node("clamp", ("x",), "y")


def of(op: Op, *inputs: str, **attributes: Any) -> Node:
    return Node(op, inputs or ("x",), "y", **attributes)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.stack([np.exp(row) / np.exp(row).sum() for row in x.reshape(-1, 3)]).reshape(x.shape)


# {operation: its node, the shape it is recorded with (for one image), what it is of X (and Z)}
SAID: dict[str, tuple[Node, tuple[int, ...], Callable[[], np.ndarray]]] = {
    "constant": (of("add", "x", "z"), (), lambda: X + Z),
    "dense": (of("dense", kernel="k", kernel_shape=(3, 2)), (), lambda: np.einsum("nhwi,io->nhwo", X, KERNEL)),
    "matmul": (of("matmul", "x", "k"), (), lambda: np.einsum("nhwi,io->nhwo", X, KERNEL)),
    "add": (of("add", "x", "x", activation="relu6"), (), lambda: np.clip(2 * X, 0, 6)),
    "sub": (of("sub", "z", "x", activation="relu"), (), lambda: np.maximum(Z - X, 0)),
    "mul": (of("mul", "x", "z", activation="relu_n1_to_1"), (), lambda: np.clip(X * Z, -1, 1)),
    "div": (of("div", "x", "z"), (), lambda: X / Z),
    "maximum": (of("maximum", "x", "z"), (), lambda: np.where(X > Z, X, Z)),
    "minimum": (of("minimum", "z", "x"), (), lambda: np.where(X > Z, Z, X)),
    "prelu": (of("prelu", "x", "z"), (), lambda: np.where(X > 0, X, X * Z)),
    "mean": (of("mean", axes=(1, 3)), (1, 2), lambda: X.sum((1, 3)) / 6),
    "clamp": (of("clamp", bounds=(-1.0, 2.5)), (), lambda: np.clip(X, -1, 2.5)),
    "logistic": (of("logistic"), (), lambda: 1 / (1 + np.exp(-X))),
    "tanh": (of("tanh"), (), lambda: np.tanh(X)),
    "hard_swish": (of("hard_swish"), (), lambda: X * np.clip(X + 3, 0, 6) / 6),
    "leaky_relu": (of("leaky_relu", alpha=0.2), (), lambda: np.where(X < 0, 0.2 * X, X)),
    "softmax": (of("softmax", alpha=0.5), (), lambda: softmax(X / 2)),
    "exp": (of("exp"), (), lambda: np.exp(X)),
    "sqrt": (of("sqrt", "square"), (), lambda: np.abs(X)),
    "rsqrt": (of("rsqrt", "square"), (), lambda: 1 / np.abs(X)),
    "neg": (of("neg"), (), lambda: -X),
    "abs": (of("abs"), (), lambda: np.where(X < 0, -X, X)),
    "square": (of("square"), (), lambda: X**2),
    "concat": (of("concat", "x", "z4", "x", axis=1), (),
        lambda: np.stack([X[:, 0], X[:, 1], X[:, 0] * 0 + Z, X[:, 0], X[:, 1]], 1)),
    "reshape": (of("reshape"), (1, 6, 2), lambda: np.stack([X[0].reshape(6, 2), X[1].reshape(6, 2)])),
    "transpose": (of("transpose", axes=(0, 3, 1, 2)), (), lambda: np.stack([X[..., c] for c in range(3)], 1)),
    "pad": (of("pad", spans=((0, 0), (1, 0), (0, 0), (0, 2)), alpha=9.0), (),
        lambda: np.pad(X - 9, ((0, 0), (1, 0), (0, 0), (0, 2))) + 9),
    "slice": (of("slice", spans=((0, 1), (1, -1), (1, 1), (0, 2))), (1, 2, 1, 2), lambda: X[:, ::-1, 1:, ::2]),
    "resize": (of("resize", mode="nearest"), (1, 4, 2, 3), lambda: X[:, [0, 0, 1, 1]]),
    "depth_to_space": (of("depth_to_space", window=(1, 3)), (), lambda: X.reshape(2, 2, 6, 1)),
    "quantize": (of("quantize"), (), lambda: X),
}  # fmt: skip


@pytest.mark.parametrize("op", SAID)
def test_what_each_operation_says(op: str) -> None:
    node, recorded, wanted = SAID[op]
    shapes = {"x": (1, 2, 2, 3), "square": (1, 2, 2, 3), "z": (3,), "z4": (1, 1, 2, 3), "k": (3, 2)}
    before = [
        Node("square", ("x",), "square"), Node("constant", (), "z", "z", (3,)),
        Node("constant", (), "z4", "z4", (1, 1, 2, 3)), Node("constant", (), "k", "k", (3, 2)),
    ]  # fmt: skip
    made = output_shape(node, tuple(shapes[i] for i in node.inputs), recorded)
    tensors = tuple(Tensor(name, shape) for name, shape in (shapes | {"y": made}).items())
    graph = Graph((*before, node), tensors, ("x",), ("y",))
    check(graph)
    params = {"z": Z, "z4": np.broadcast_to(Z, (2, 3)), "k": KERNEL}
    np.testing.assert_allclose(interpret_float(graph, params, X), wanted(), rtol=1e-5, atol=1e-5)


def test_no_operation_is_forgotten() -> None:
    elsewhere = {"conv", "depthwise", "transpose_conv", "avg_pool", "max_pool"}
    assert SAID.keys() | elsewhere == set(get_args(Op))


def run_file(
    code: str, options: str, fields: dict[str, Any], x: np.ndarray, out: tuple[int, ...], *size: int
) -> np.ndarray:
    """What LiteRT's reference kernel makes of an image, with `size` as second input where it is given."""
    writer = Writer("test")
    inputs = [writer.tensor("x", x.shape, np.float32)]
    inputs += [writer.tensor("size", (len(size),), np.int32, data=np.asarray(size, np.int32))] if size else []
    y = writer.tensor("y", out, np.float32)
    writer.operator(code, 1 if not size else 3, inputs, y, options, fields)
    return run_raw(writer.finish(inputs[:1], [y], {}), [x])[0]


@pytest.mark.parametrize("how", ["bilinear", "nearest"])
@pytest.mark.parametrize("where", ["", "/half_pixel", "/align_corners"])
@pytest.mark.parametrize("size", [(10, 8), (7, 3), (15, 1), (3, 12)])
def test_resizes_are_those_of_litert(how: str, where: str, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=(1, 5, 4, 2)).astype(np.float32)
    code, options = {
        "bilinear": ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
        "nearest": ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
    }[how]
    fields = {"alignCorners": where == "/align_corners", "halfPixelCenters": where == "/half_pixel"}
    wanted = run_file(code, options, fields, x, (1, *size, 2), *size)
    node = Node("resize", ("x",), "y", mode=how + where)
    got = interpret_float(single(node, x.shape, (1, *size, 2)), {}, x)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_depth_to_space_is_that_of_litert() -> None:
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 12)).astype(np.float32)
    wanted = run_file("DEPTH_TO_SPACE", "DepthToSpaceOptions", {"blockSize": 2}, x, (1, 6, 8, 3))
    node = Node("depth_to_space", ("x",), "y", window=(2, 2))
    np.testing.assert_array_equal(interpret_float(single(node, x.shape), {}, x), wanted)


@given(st.integers(1, 20), st.integers(1, 40), st.sampled_from(["bilinear", "nearest"]))
def test_resizing_reads_inside_the_image(size: int, out: int, how: str) -> None:
    for where in ("", "/half_pixel", "/align_corners"):
        lower, upper, fraction = resize_positions(size, out, how + where)
        assert lower.min() >= 0
        assert max(upper.max(), lower.max()) < size
        assert np.all((fraction >= 0) | (lower == upper))
        assert np.all(fraction <= 1)
        assert np.all(np.diff(lower) >= 0)


def test_constants_do_not_grow_with_the_batch() -> None:
    """A chain of nodes on a constant of several rows, and one that ends in a layer's kernel."""
    nodes = (
        Node("constant", (), "c", "c", (4, 3)),
        Node("reshape", ("c",), "r", ),
        Node("slice", ("r",), "s", spans=((0, 2), (0, 1))),
        Node("mul", ("x", "s"), "m"),
        Node("reshape", ("c",), "k"),
        Node("dense", ("m", "k"), "y", kernel_shape=(6, 2)),
    )  # fmt: skip
    shapes = {"x": (1, 6), "c": (4, 3), "r": (2, 6), "s": (1, 6), "m": (1, 6), "k": (6, 2), "y": (1, 2)}
    graph = Graph(nodes, tuple(Tensor(n, s) for n, s in shapes.items()), ("x",), ("y",))
    check(graph)
    c, x = np.arange(12.0).reshape(4, 3), np.arange(24.0).reshape(4, 6)
    wanted = (x * c.reshape(2, 6)[0]) @ c.reshape(6, 2)
    np.testing.assert_allclose(interpret_float(graph, {"c": c}, x), wanted)


def test_batches_grow_the_first_axis_only() -> None:
    assert batched((1, 3), 5) == (5, 3)
    assert batched((2, 3), 1) == (2, 3)
    with pytest.raises(ValueError, match="mixes images"):
        batched((2, 3), 5)
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(cut(x, ((0, 1), (2, -1), (1, 2)), (1, 3, 2)), x[:, ::-1, 1::2])
    np.testing.assert_array_equal(cut(x, ((0, 2), (0, 1), (0, 1)), (1, 3, 4)), x[:1])
    mixed = Node("transpose", ("x",), "y", axes=(1, 0))
    graph = Graph((mixed,), (Tensor("x", (1, 3)), Tensor("y", (3, 1))), ("x",), ("y",))
    assert interpret_float(graph, {}, np.ones((1, 3))).shape == (3, 1)
    with pytest.raises(ValueError, match="'y' mixes the images"):
        interpret_float(graph, {}, np.ones((2, 3)))


def test_an_unknown_operation_has_no_meaning() -> None:
    with pytest.raises(ValueError, match="'warp' has no meaning"):
        apply_float(Node("warp", ("x",), "y"), [jax.numpy.ones((1, 3))], Weights({}), (1, 3))


def test_every_tensor_can_be_seen() -> None:
    net = inverted_residual()
    graph, _ = fuse(trace(net.fn, net.params, net.image))
    assert {n.op for n in graph.nodes} & set(WEIGHTED)
    images = net.images()
    values, ranges = site_values(graph, net.params, images), observe(graph, net.params, images)
    assert set(values) == set(ranges) == {t.name for t in graph.tensors}
    assert ranges["stem"][0] >= 0
    assert ranges["stem"][1] <= 6
    assert ranges["head"] == (float(values["head"].min()), float(values["head"].max()))


def test_images_of_another_size_or_number_are_refused() -> None:
    net = inverted_residual()
    graph = trace(net.fn, net.params, net.image)
    with pytest.raises(ValueError, match=r"input is \[N, 16, 16, 1\]"):
        interpret_float(graph, net.params, np.zeros((2, 16, 15, 1)))
    with pytest.raises(ValueError, match="takes 1 input"):
        interpret_float(graph, net.params, [net.images(), net.images()])
