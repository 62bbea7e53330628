"""The float interpreter against loops in numpy that know nothing of XLA."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.graph.interpret import interpret_float, observe, site_values
from research.graph.ir import Graph, Node, Padding, Tensor
from research.graph.rewrite import fuse
from research.graph.shapes import output_shape
from research.graph.trace import trace
from tests.graph.samples import inverted_residual

SIZES = st.sampled_from([4, 5, 7])
PADDINGS = st.sampled_from(["SAME", "VALID"])


def single(node: Node, shape: tuple[int, ...], recorded: tuple[int, ...] = ()) -> Graph:
    tensors = tuple(Tensor(name, shape) for name in dict.fromkeys(node.inputs))
    made = Tensor("y", output_shape(node, (shape,) * len(node.inputs), recorded))
    return Graph((node,), (*tensors, made), ("x",), ("y",))


def windows(x: np.ndarray, window: int, stride: int, padding: Padding) -> list[list[np.ndarray]]:
    """The pixels under each window of one image [H, W, C], blocks [rows, columns, C] with NaN outside."""
    size = x.shape[0]
    count = -(-size // stride) if padding == "SAME" else (size - window) // stride + 1
    before = max((count - 1) * stride + window - size, 0) // 2 if padding == "SAME" else 0
    wide = np.full((size + 4 * window, size + 4 * window, x.shape[2]), np.nan)
    wide[2 * window : 2 * window + size, 2 * window : 2 * window + size] = x
    starts = [2 * window - before + i * stride for i in range(count)]
    return [[wide[r : r + window, c : c + window] for c in starts] for r in starts]


@settings(max_examples=15)
@given(
    st.sampled_from(["conv", "depthwise"]),
    SIZES,
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 2]),
    PADDINGS,
)
def test_convolutions(op: str, size: int, window: int, stride: int, padding: Padding) -> None:
    rng = np.random.default_rng(size)
    shape = (window, window, 3, 2) if op == "conv" else (window, window, 1, 3)
    params = {"k": rng.normal(size=shape), "b": rng.normal(size=shape[-1])}
    node = Node(op, ("x",), "y", "k", shape, "b", "relu", (stride, stride), padding)
    x = rng.normal(size=(1, size, size, 3))
    equation = "ijc,ijco->o" if op == "conv" else "ijc,ijc->c"
    kernel = params["k"] if op == "conv" else params["k"][:, :, 0]
    wanted = [
        [np.maximum(np.einsum(equation, np.nan_to_num(w), kernel) + params["b"], 0) for w in row]
        for row in windows(x[0], window, stride, padding)
    ]
    got = interpret_float(single(node, x.shape), params, x)
    np.testing.assert_allclose(got[0], wanted, rtol=1e-4, atol=1e-5)


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


def test_the_rest_by_hand() -> None:
    x = np.arange(24.0).reshape(2, 2, 2, 3) - 7

    def run(node: Node, recorded: tuple[int, ...] = (), **params: np.ndarray) -> np.ndarray:
        return np.asarray(interpret_float(single(node, (1, 2, 2, 3), recorded), params, x))

    np.testing.assert_allclose(run(Node("add", ("x", "x"), "y", activation="relu6")), np.clip(2 * x, 0, 6))
    np.testing.assert_allclose(run(Node("mean", ("x",), "y"), (1, 3)), x.mean((1, 2)))
    np.testing.assert_allclose(run(Node("mean", ("x",), "y"), (1, 1, 1, 3))[:, 0, 0], x.mean((1, 2)))
    np.testing.assert_allclose(run(Node("concat", ("x", "x"), "y", axis=1)), np.concatenate([x, x], 1))
    np.testing.assert_allclose(run(Node("reshape", ("x",), "y"), (1, 12)), x.reshape(2, 12))
    np.testing.assert_allclose(run(Node("clamp", ("x",), "y", bounds=(-1.0, 2.5))), np.clip(x, -1, 2.5))
    np.testing.assert_allclose(run(Node("bias", ("x",), "y", bias="b"), b=np.arange(3.0)), x + np.arange(3.0))


def test_every_tensor_can_be_seen() -> None:
    net = inverted_residual()
    graph, _ = fuse(trace(net.fn, net.params, net.image))
    images = net.images()
    values, ranges = site_values(graph, net.params, images), observe(graph, net.params, images)
    assert set(values) == set(ranges) == {t.name for t in graph.tensors}
    assert ranges["stem"][0] >= 0
    assert ranges["stem"][1] <= 6
    assert ranges["head"] == (float(values["head"].min()), float(values["head"].max()))


def test_images_of_another_size_are_refused() -> None:
    net = inverted_residual()
    graph = trace(net.fn, net.params, net.image)
    with pytest.raises(ValueError, match=r"input is \[N, 16, 16, 1\]"):
        interpret_float(graph, net.params, np.zeros((2, 16, 15, 1)))
