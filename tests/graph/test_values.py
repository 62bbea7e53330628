"""The draft merges what it can, and never across a site."""

import numpy as np
import pytest

from research.graph.ir import Node, check
from research.graph.values import Comparison, Draft, Value, Weight, uniform


def draft(*shape: int) -> tuple[Draft, str]:
    made = Draft()
    return made, made.new_tensor(shape)


def test_clamps_merge_when_they_meet() -> None:
    d, x = draft(1, 3)
    assert d.clamp(x, -np.inf, np.inf) == Value(x)
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
    uneven = d.reshape(Value(x, np.arange(1.0, 7.0)[None, None]), (1, 12))
    assert uneven.settled
    assert d.nodes[d.nodes[uneven.tensor].inputs[0]].op == "mul", "what is no count is multiplied first"


def test_a_mean_may_keep_its_axes() -> None:
    d, x = draft(1, 4, 4, 5)
    mean = d.add(Node("mean", (x,), "", axes=(1, 2)), (1, 5), np.asarray(16.0))
    kept = d.reshape(mean, (1, 1, 1, 5))
    assert d.nodes[kept.tensor].op == "mean"
    assert not kept.settled
    assert Value(kept.tensor, kept.factor / 16).settled
    assert d.nodes[d.reshape(mean, (1, 5, 1)).tensor].op == "reshape"
    d.clamp(mean.tensor, 0.0, 1.0)
    again = d.nodes[d.reshape(mean, (1, 1, 1, 5)).tensor]
    assert (again.op, again.inputs) == ("reshape", (mean.tensor,)), "a mean that is read is not made twice"


def test_everything_reads_as_a_tensor_but_comparisons() -> None:
    d, x = draft(1, 2, 3)
    assert d.read(Value(x)) == x
    scaled = d.read(Value(x, np.asarray(4.0)))
    assert d.read(Value(x, np.asarray(4.0))) == scaled
    known, weight = d.read(np.asarray(2.0)), d.read(Weight("w", 3, (1, 1, 3)))
    assert (d.shapes[known], d.shapes[weight]) == ((1,), (1, 1, 3))
    wide = d.read(Weight("w", 3, (1, 2, 3)))
    assert (d.nodes[wide].op, d.nodes[d.repeated[wide]].op) == ("concat", "reshape")
    assert {known, weight, wide} < d.fixed
    assert not {x, scaled} & d.fixed
    assert [d.shape(v) for v in (Value(x), Weight("w", 3, (1, 3)), np.ones(2))] == [(1, 2, 3), (1, 3), (2,)]
    with pytest.raises(ValueError, match="only a choice"):
        d.read(Comparison(x, True, 0.0))


def test_transposes_merge_and_axes_of_size_one_stay() -> None:
    d, x = draft(1, 2, 3, 1)
    y = d.transpose(Value(x), (3, 2, 1, 0))
    assert d.nodes[y.tensor].axes == (0, 2, 1, 3)
    assert d.transpose(y, (0, 2, 1, 3)) == Value(x, y.factor)
    assert d.nodes[d.transpose(Value(x), (0, 3, 1, 2)).tensor].op == "reshape"


def test_only_what_is_fixed_repeats_along_the_batch() -> None:
    d, x = draft(1, 3)
    assert d.shape(d.broadcast(Value(x), (1, 2, 3))) == (1, 2, 3)
    assert d.shape(d.broadcast(Value(d.read(np.ones(3))), (2, 3))) == (2, 3)
    with pytest.raises(ValueError, match="along the batch"):
        d.broadcast(Value(x), (2, 3))


def test_pads_cut_where_they_are_negative() -> None:
    d, x = draft(1, 5)
    assert d.pad(Value(x), [(0, 0), (0, 0)]) == Value(x)
    y = d.nodes[d.pad(Value(x), [(0, 0), (-2, 1)], 7.0).tensor]
    assert (y.op, y.spans, y.alpha) == ("pad", ((0, 0), (0, 1)), 7.0)
    assert d.nodes[y.inputs[0]].spans == ((0, 1), (2, 1))
    assert d.shapes[y.output] == (1, 4)
    assert d.cut(Value(x), [(0, 1), (0, 1)], (1, 5)) == Value(x)


def test_kernels_are_weights_or_made_of_weights() -> None:
    d, x = draft(1, 3)
    plain = d.layer(Node("dense", (x,), ""), Weight("w", 6, (3, 2)), (3, 2))
    assert d.nodes[plain.tensor].kernel == "w"
    made = d.add_node(Node("neg", (d.read(Weight("w", 6, (3, 2))),), ""))
    computed = d.nodes[d.layer(Node("dense", (x,), ""), made, (3, 2)).tensor]
    assert (computed.kernel, computed.inputs) == (None, (x, made.tensor))
    assert computed.output not in d.fixed
    with pytest.raises(ValueError, match="depends on the image"):
        d.layer(Node("dense", (x,), ""), Value(x), (3, 1))
    assert d.made(plain.tensor, "dense") is d.nodes[plain.tensor]
    d.name(plain.tensor, "head")
    assert d.made(plain.tensor, "dense") is None, "a site is not merged away"


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
    with pytest.raises(ValueError, match="not finite"):
        d.weight(np.array([1.0, np.inf]), (2,))
    node = d.nodes[d.constant(Weight("a/b", 1, ()), ())]
    assert (node.kernel, node.kernel_shape) == ("a/b", (1,))


def test_uniform_constants() -> None:
    assert uniform(np.full((2, 2), 3)) == 3.0
    assert uniform(np.array([1.0, 2.0])) is None
    assert uniform(np.zeros(0)) is None
    assert uniform(Value("x")) is None
