"""Channel groups: found through every kind of tie, and removal changes nothing where the channels were zero."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from research import nets
from research.graph.groups import Channels, channel_groups, channels, remove_channels
from research.graph.interpret import interpret_float
from research.graph.ir import Graph, Node, Op, Tensor
from research.graph.rewrite import fuse
from research.graph.trace import trace
from research.graph.weights import weights_of
from research.nets import Block, HandNet
from tests.graph.samples import Net, conv, inverted_residual, weights

KINDS = (
    "conv",
    "depthwise",
    "residual",
    "concat",
    "excite",
    "pool",
    "mean_pool",
    "pad",
    "resize",
    "norm",
    "swish",
)


def network(kinds: tuple[str, ...], width: int, flat: bool, seed: int = 0) -> Net:
    """A stem, these blocks and a head, without fusing anything."""
    rng, channels_now = np.random.default_rng(seed), width
    params: dict[str, Any] = {"stem": weights(rng, 3, 3, 2, width)}
    for i, kind in enumerate(kinds):
        if kind in ("conv", "residual", "concat"):
            out = {"conv": width + i, "residual": channels_now, "concat": 3}[kind]
            params[f"l{i}"] = weights(rng, 3, 3, channels_now, out)
            channels_now = channels_now + 3 if kind == "concat" else out
        if kind == "depthwise":
            params[f"l{i}"] = weights(rng, 3, 3, 1, channels_now)
        if kind == "excite":
            params[f"l{i}"] = {"a": weights(rng, channels_now, 5), "b": weights(rng, 5, channels_now)}
        if kind == "norm":
            values = rng.uniform(0.5, 1.5, (2, channels_now)).astype(np.float32)
            params[f"l{i}"] = {"scale": values[0], "shift": values[1] - 1}

    def fn(p: Any, x: jax.Array) -> jax.Array:
        y = body(kinds, p, x)
        y = y.reshape(y.shape[0], -1) if flat else y.mean((1, 2))
        return y @ p["head"]["kernel"] + p["head"]["bias"][None, :]

    shape = (1, 6, 6, 2)
    made = jax.eval_shape(lambda x: body(kinds, params, x), jax.ShapeDtypeStruct(shape, jnp.float32)).shape
    params["head"] = weights(rng, int(np.prod(made[1:])) if flat else made[-1], 4)
    return Net(fn, params, shape)


def body(kinds: tuple[str, ...], p: Any, x: jax.Array) -> jax.Array:
    x = jax.nn.relu(conv(p["stem"], x))
    for i, kind in enumerate(kinds):
        x = BLOCKS[kind](p.get(f"l{i}"), x)
    return x


def _excite(p: Any, x: jax.Array) -> jax.Array:
    y = jax.nn.relu(x.mean((1, 2)) @ p["a"]["kernel"] + p["a"]["bias"][None, :])
    gate = jax.nn.sigmoid(y @ p["b"]["kernel"] + p["b"]["bias"][None, :])
    return x * gate[:, None, None, :]


def _norm(p: Any, x: jax.Array) -> jax.Array:
    return x * p["scale"][None, None, None, :] + p["shift"][None, None, None, :]


BLOCKS: dict[str, Callable[[Any, jax.Array], jax.Array]] = {
    "conv": lambda p, x: jax.nn.relu6(conv(p, x)),
    "depthwise": lambda p, x: jax.nn.relu(conv(p, x, 1, x.shape[-1])),
    "residual": lambda p, x: x + conv(p, x),
    "concat": lambda p, x: jnp.concatenate([x, jax.nn.relu(conv(p, x))], -1),
    "excite": _excite,
    "pool": lambda p, x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"),
    "mean_pool": lambda p, x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID") / 4,
    "pad": lambda p, x: jnp.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0))),
    "resize": lambda p, x: jax.image.resize(x, (x.shape[0], 9, 10, x.shape[3]), "bilinear"),
    "norm": _norm,
    "swish": lambda p, x: jax.nn.hard_swish(x),
}


def closed(
    graph: Graph, params: Any, groups: tuple[Channels, ...], keep: dict[str, list[int]]
) -> dict[str, Any]:
    """The parameters in the graph's layout, with every channel outside `keep` zero."""
    arrays = weights_of(graph, params).arrays
    layouts = {n.kernel: n.kernel_shape for n in graph.nodes if n.kernel}
    found = {path: array.reshape(layouts.get(path, (-1,))).copy() for path, array in arrays.items()}
    for group in groups:
        gone = set(range(group.size)) - set(keep.get(group.name, range(group.size)))
        for part in group.slices:
            at = [position for i in gone for position in part.index[i]]
            np.moveaxis(found[part.path], part.axis, 0)[at] = 0
    return found


@settings(max_examples=20)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    st.integers(2, 5),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_removing_zero_channels_changes_nothing(
    kinds: list[str], width: int, flat: bool, fused: bool, seed: int
) -> None:
    net = network(tuple(kinds), width, flat)
    graph = trace(net.fn, net.params, net.image)
    graph = fuse(graph)[0] if fused else graph
    groups, rng = channels(graph), np.random.default_rng(seed)
    assert groups
    keep = {g.name: np.sort(rng.permutation(g.size)[: rng.integers(1, g.size + 1)]).tolist() for g in groups}
    params = closed(graph, net.params, groups, keep)
    images = rng.normal(size=(2, *net.shape[1:])).astype(np.float32)
    wanted = interpret_float(graph, params, images)
    small, less = remove_channels(graph, params, keep)
    np.testing.assert_allclose(interpret_float(small, less, images), wanted, atol=1e-5 * np.abs(wanted).max())
    for group in groups:
        for part in group.slices:
            gone = sum(len(part.index[i]) for i in range(group.size) if i not in keep[group.name])
            assert less[part.path].size < params[part.path].size or not gone


@pytest.mark.parametrize("stem", [8, 12])
def test_the_groups_of_the_hand_network_are_found(stem: int) -> None:
    net = HandNet(32, stem, (Block(24, 8, stride=2), Block(16, 8), Block(12, 16, 5, 2)), 8)
    graph, _ = fuse(trace(*nets.traced(net)))
    found = {frozenset(g.params): g.size for g in channel_groups(graph)}
    for group in net.folded().groups():
        assert found.pop(frozenset(group.params)) == group.size
    tied = frozenset({("b0/project/kernel", 3), ("b0/project/bias", 0), ("b1/project/kernel", 3)})
    assert {size for params, size in found.items() if params >= tied} == {8}


def test_a_flatten_repeats_a_channel_for_every_pixel() -> None:
    net = inverted_residual(8)
    groups = {g.name: g for g in channels(fuse(trace(net.fn, net.params, net.image))[0])}
    head = next(s for s in groups["b1/project"].slices if s.path == "head/kernel")
    assert head.index[3] == (3, 11, 19, 27)
    assert "b1/project" not in {g.name for g in channel_groups(fuse(trace(net.fn, net.params, net.image))[0])}


def graph_of(op: Op, fill: float = 0.0) -> Graph:
    """1x1 conv to 4 channels, this operation, 1x1 conv to 2."""
    made: dict[str, dict[str, Any]] = {
        "softmax": {"alpha": 1.0},
        "depth_to_space": {"window": (2, 2)},
        "pad": {"spans": ((0, 0), (1, 1), (0, 0), (0, 0)), "alpha": fill},
    }
    sizes = {"depth_to_space": (1, 8, 8, 1), "pad": (1, 6, 4, 4)}.get(op, (1, 4, 4, 4))
    nodes = (
        Node("conv", ("x",), "a", kernel="a", kernel_shape=(1, 1, 3, 4)),
        Node(op, ("a",), "m", **made.get(op, {})),
        Node("conv", ("m",), "y", kernel="y", kernel_shape=(1, 1, sizes[3], 2)),
    )
    shapes = {"x": (1, 4, 4, 3), "a": (1, 4, 4, 4), "m": sizes, "y": (*sizes[:3], 2)}
    return Graph(nodes, tuple(Tensor(n, s) for n, s in shapes.items()), ("x",), ("y",))


@pytest.mark.parametrize(
    ("op", "fill"), [("softmax", 0.0), ("depth_to_space", 0.0), ("logistic", 0.0), ("pad", 1.0)]
)
def test_channels_that_are_mixed_or_leave_a_constant_stay(op: Op, fill: float) -> None:
    assert channels(graph_of(op, fill)) == ()
    assert [g.size for g in channels(graph_of("pad"))] == [4]


def test_a_weight_that_is_read_twice_ties_its_readers() -> None:
    nodes = (
        Node("conv", ("x",), "a", kernel="a", kernel_shape=(1, 1, 2, 4)),
        Node("conv", ("a",), "b", kernel="shared", kernel_shape=(1, 1, 4, 4)),
        Node("conv", ("b",), "c", kernel="shared", kernel_shape=(1, 1, 4, 4)),
        Node("conv", ("c",), "y", kernel="y", kernel_shape=(1, 1, 4, 1)),
    )
    shapes = {"x": 2, "a": 4, "b": 4, "c": 4, "y": 1}
    graph = Graph(nodes, tuple(Tensor(n, (1, 2, 2, c)) for n, c in shapes.items()), ("x",), ("y",))
    (group,) = channels(graph)
    assert (group.name, group.size) == ("a", 4)
    assert {(s.path, s.axis) for s in group.slices} == {("a", 3), ("shared", 2), ("shared", 3), ("y", 2)}


def test_a_constant_of_the_graph_is_cut_too() -> None:
    fixed = np.arange(1.0, 5.0, dtype=np.float32)
    params = {"a": weights(np.random.default_rng(0), 2, 4), "y": weights(np.random.default_rng(1), 4, 1)}

    def fn(p: Any, x: jax.Array) -> jax.Array:
        return (x @ p["a"]["kernel"] * fixed[None, :]) @ p["y"]["kernel"]

    graph = trace(fn, params, jax.ShapeDtypeStruct((1, 2), jnp.float32))
    (group,) = channels(graph)
    small, less = remove_channels(graph, params, {group.name: [3, 1]})
    assert small.constants == ()
    assert less[graph.constants[0].name].tolist() == [2.0, 4.0]
    assert less["a/kernel"].shape == (2, 2)


@pytest.mark.parametrize("keep", [[], [0, 0], [4], [-1]])
def test_choices_that_mean_nothing_are_refused(keep: list[int]) -> None:
    graph = graph_of("pad")
    params = {"a": np.ones((3, 4)), "y": np.ones((4, 2))}
    with pytest.raises(ValueError, match="group 'a': keep distinct channels, at least one, each below 4"):
        remove_channels(graph, params, {"a": keep})
    with pytest.raises(ValueError, match="no channel group 'aa'; did you mean 'a'"):
        remove_channels(graph, params, {"aa": keep})
