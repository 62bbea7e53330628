"""Moves of numbers: what merges, what vanishes, and where every entry ends up."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from research.graph.layout import reversed_along, seen_as, transposed
from research.graph.trace import trace
from research.graph.values import Draft, Value, Weight
from tests.graph.samples import agreed, ops

SHAPE = (1, 4, 6, 4)
IMAGE = jax.ShapeDtypeStruct(SHAPE, jnp.float32)

MOVED: dict[str, tuple[Any, list[str]]] = {
    "flatten": (lambda x: x.reshape(x.shape[0], -1), ["reshape"]),
    "there and back": (lambda x: jax.nn.relu(x.reshape(-1, 24, 4).reshape(x.shape)), ["clamp"]),
    "new axes": (lambda x: jnp.expand_dims(x[:, None], -1).squeeze(1), ["reshape"]),
    "transpose": (lambda x: x.transpose(0, 3, 1, 2), ["transpose"]),
    "transpose and back": (lambda x: -x.transpose(0, 2, 1, 3).transpose(0, 2, 1, 3), ["neg"]),
    "transpose twice": (lambda x: x.transpose(0, 2, 1, 3).transpose(0, 3, 1, 2), ["transpose"]),
    "permuting reshape": (
        lambda x: lax.reshape(x, (x.shape[0], 96), (0, 2, 1, 3)), ["transpose", "reshape"]
    ),
    "moved axes of size 1": (lambda x: x.mean(1, keepdims=True).transpose(0, 2, 1, 3), ["mean", "reshape"]),
    "pixel shuffle": (
        lambda x: x.reshape(-1, 4, 6, 2, 2, 1).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 8, 12, 1),
        ["reshape", "transpose", "reshape"],
    ),
    "slices": (lambda x: x[:, 1:3, ::2], ["slice"]),
    "one row": (lambda x: x[:, -1], ["slice", "reshape"]),
    "everything": (lambda x: -x[:, :, 0:6], ["neg"]),
    "flip": (lambda x: x[:, ::-1], ["slice"]),
    "split": (lambda x: jnp.split(x, [1, 4], 2), ["slice", "slice", "slice"]),
    "pad": (lambda x: jnp.pad(x, ((0, 0), (1, 0), (2, 1), (0, 0)), constant_values=3.0), ["pad"]),
    "negative pad": (lambda x: lax.pad(x, 0.0, ((0, 0, 0), (-1, 1, 0), (0, -2, 0), (0, 0, 0))), ["slice", "pad"]),
    "wrapped pad": (
        lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)), mode="wrap"), ["slice", "concat"]
    ),
    "concat": (lambda x: jnp.concatenate([x, -x, x], 2), ["neg", "concat"]),
    "concat with a constant": (
        lambda x: jnp.concatenate([x, jnp.broadcast_to(jnp.arange(4.0), x.shape)], 1), ["concat"]
    ),
    "stack": (lambda x: jnp.stack([x, -x], 1), ["neg", "reshape", "reshape", "concat"]),
    "repeat": (lambda x: jnp.repeat(x, 2, 1), ["reshape", "concat", "reshape"]),
    "roll": (lambda x: jnp.roll(x, 1, 2), ["slice", "slice", "concat"]),
    "no-ops": (lambda x: -lax.stop_gradient(jnp.array(x)).astype(jnp.float32), ["neg"]),
    "barrier": (lambda x: lax.optimization_barrier((x, -x))[1], ["neg"]),
}  # fmt: skip


@pytest.mark.parametrize("move", MOVED)
def test_a_move_has_its_nodes_and_values(move: str) -> None:
    fn, wanted = MOVED[move]
    graph = agreed(lambda p, x: fn(x), {}, SHAPE)
    assert ops(graph) == wanted


@settings(max_examples=20)
@given(st.permutations(range(1, 5)), st.sets(st.integers(1, 4)))
def test_any_transpose_keeps_the_batch_in_front(order: list[int], units: set[int]) -> None:
    shape = (1, *(1 if a in units else a + 1 for a in range(1, 5)))
    graph = agreed(lambda p, x: x.transpose(0, *order), {}, shape)
    assert len(graph.nodes) <= 1
    assert all(n.op == "reshape" or n.axes[0] == 0 for n in graph.nodes)


def test_a_batch_that_wanders_comes_home() -> None:
    attention = lambda p, x: jax.nn.dot_product_attention(x, x, x)  # noqa: E731  moves axes of size 1 in front
    graph = agreed(attention, {}, SHAPE, images=3)
    assert all(t.shape[0] == 1 for t in graph.tensors if "constant" not in t.name)


def test_parameters_move_too() -> None:
    params = {"w": np.ones((2, 6)), "b": np.ones(4)}
    assert ops(agreed(lambda p, x: x + p["w"].reshape(1, 3, 1, 4)[:, :1], params, SHAPE)) == ["slice", "add"]
    assert ops(agreed(lambda p, x: x + jnp.broadcast_to(p["b"], (1, 4, 6, 4)), params, SHAPE)) == ["add"]
    wide = lambda p, x: x * jnp.broadcast_to(p["b"][None, :, None, None], (1, 4, 6, 4))  # noqa: E731
    assert ops(agreed(wide, params, SHAPE)) == ["mul"]
    both = lambda p, x: jnp.concatenate([x, jnp.broadcast_to(p["b"], (1, 4, 1, 4))], 2)  # noqa: E731
    assert ops(agreed(both, params, SHAPE, images=1)) == ["reshape", "concat", "concat"]


def test_weights_are_seen_not_copied() -> None:
    draft = Draft()
    weight, known = Weight("w", 6, (2, 3)), np.arange(6.0).reshape(2, 3)
    assert seen_as(draft, weight, (6, 1)) == Weight("w", 6, (6, 1))
    np.testing.assert_array_equal(seen_as(draft, known, (6,)), np.arange(6.0))
    np.testing.assert_array_equal(transposed(draft, known, (1, 0)), known.T)
    np.testing.assert_array_equal(reversed_along(draft, known, (1,)), known[:, ::-1])
    assert transposed(draft, weight, (0, 1)) is weight
    assert draft.nodes == {}
    turned = transposed(draft, weight, (1, 0))
    assert draft.nodes[turned.tensor].op == "transpose"
    flipped = reversed_along(draft, Value(turned.tensor), (0,))
    assert draft.nodes[flipped.tensor].spans == ((2, -1), (0, 1))
    assert flipped.tensor in draft.fixed


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (lambda x: jnp.broadcast_to(x, (3, 4, 6, 4)), "repeats the image"),
        (lambda x: lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))), "between the entries"),
        (lambda x: lax.pad(x, x.mean(), ((0, 0, 0), (0, 1, 0), (0, 0, 0), (0, 0, 0))), "one constant number"),
        (lambda x: x.astype(jnp.int32), "into int32"),
        (lambda x: lax.dynamic_slice_in_dim(x, jnp.int32(1), 2, 1), "fixed positions"),
        (lambda x: x[..., jnp.array([1, 0])], "slices at fixed positions"),
        (lambda x: x.at[:, 0].set(0.0), "concatenate slices"),
        (lambda x: jnp.tile(x, (1, 2, 1, 1)), "concatenate slices"),
    ],
)
def test_moves_outside_the_graph_say_why(fn: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        trace(lambda p, x: fn(x), {}, IMAGE)
