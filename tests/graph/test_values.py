"""The draft merges what it can, and never across a site."""

import numpy as np
import pytest

from research.graph.ir import Node, check
from research.graph.values import Draft, Value, Weight, uniform


def draft(*shape: int) -> tuple[Draft, str]:
    made = Draft()
    return made, made.new_tensor(shape)


def test_clamps_merge_when_they_meet() -> None:
    d, x = draft(1, 3)
    y = d.clamp(d.clamp(x, 0.0, np.inf).tensor, -np.inf, 6.0)
    assert d.nodes[y.tensor].inputs == (x,)
    assert d.nodes[y.tensor].bounds == (0.0, 6.0)
    apart = d.clamp(d.clamp(x, 5.0, np.inf).tensor, -np.inf, 2.0)
    assert d.nodes[apart.tensor].bounds == (-np.inf, 2.0), "an empty intersection must not merge"


def test_a_site_between_two_clamps_keeps_them() -> None:
    d, x = draft(1, 3)
    first = d.clamp(x, 0.0, np.inf)
    d.name(first.tensor, "between")
    assert d.nodes[d.clamp(first.tensor, 0.0, 6.0).tensor].inputs == (first.tensor,)


def test_reshapes_merge_and_vanish() -> None:
    d, x = draft(1, 2, 6)
    y = d.reshape(Value(x), (1, 12))
    assert d.reshape(y, (1, 2, 6)) == Value(x, y.factor)
    assert d.nodes[d.reshape(y, (1, 3, 4)).tensor].inputs == (x,)
    assert d.reshape(Value(x), (1, 2, 6)).tensor == x
    with pytest.raises(ValueError, match="before it is reshaped"):
        d.reshape(Value(x, np.array([1.0, 2.0])), (1, 12))


def test_a_mean_may_keep_its_axes() -> None:
    d, x = draft(1, 4, 4, 5)
    mean = d.add(Node("mean", (x,), ""), (1, 5), np.asarray(16.0))
    kept = d.reshape(mean, (1, 1, 1, 5))
    assert d.nodes[kept.tensor].op == "mean"
    assert not kept.settled
    assert Value(kept.tensor, kept.factor / 16).settled


def test_sites_name_one_tensor_once() -> None:
    d, x = draft(1, 3)
    y = d.clamp(x, 0.0, 1.0).tensor
    d.name(x, "a")
    d.name(x, "a")
    with pytest.raises(ValueError, match="both 'a' and 'b'"):
        d.name(x, "b")
    with pytest.raises(ValueError, match="two tensors"):
        d.name(y, "a")
    graph = d.graph((x,), (y,))
    check(graph)
    assert graph.inputs == ("a",)
    assert [t.site for t in graph.tensors] == [True, False]


def test_weights_are_parameters_or_constants() -> None:
    d, _ = draft(1, 3)
    assert d.weight(Weight("a/b", 6, (2, 3)), (1, 1, 2, 3)) == "a/b"
    name = d.weight(np.ones((2, 3)), (2, 3))
    assert d.constants[name].shape == (2, 3)
    with pytest.raises(ValueError, match="not a plain parameter"):
        d.weight(Weight("a/b", 3, (4, 3)), (4, 3))


def test_uniform_constants() -> None:
    assert uniform(np.full((2, 2), 3)) == 3.0
    assert uniform(np.array([1.0, 2.0])) is None
    assert uniform(np.zeros(0)) is None
    assert uniform(Value("x")) is None
