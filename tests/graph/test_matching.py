"""What patterns see: readers, constants, what may disappear; and that a change keeps everything else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from research.graph.ir import Node, check
from research.graph.matching import Change, Pattern, View, ordered
from research.graph.rewrite import PATTERNS, drop_dead
from research.graph.tangles import tangle
from research.graph.weights import weights_of
from tests.graph.chains import Chain


def view_of(chain: Chain, *outputs: str) -> View:
    graph = chain.graph(*outputs)
    return View(graph, weights_of(graph, {}).arrays)


def test_a_view_knows_readers_constants_and_what_may_go() -> None:
    c = Chain()
    a = c.add("tanh", "image")
    b = c.add("mul", a, a)
    d = c.step("add", b, [1, 2, 3, 4], site=True)
    e = c.add("abs", d)
    view = view_of(c, e)
    assert [n.op for n in view.readers[a]] == ["mul", "mul"]
    assert [view.free(x) for x in (a, b, d, e, "image")] == [False, True, False, False, False]
    assert [view.plain(x) for x in (a, d, e, "image")] == [True, False, False, False]
    known = view.known(view.graph.node_of(d).inputs[1])
    assert known is not None
    assert known.dtype == np.float64
    assert known.tolist() == [1, 2, 3, 4]
    assert view.known(a) is None
    assert View(view.graph).known(view.graph.node_of(d).inputs[1]) is None
    assert view.maker("image") is None


def test_same_keeps_the_name_that_has_to_stay() -> None:
    c = Chain()
    a = c.add("tanh", "image")
    b = c.add("clamp", a, site=True, bounds=(-1.0, 1.0))
    c.add("abs", b)
    view = view_of(c)
    change = view.same(view.graph.node_of(b), a)
    assert isinstance(change, Change)
    after = view.apply(view.graph.node_of(b), change).graph
    assert (after.nodes[0].op, after.nodes[0].output) == ("tanh", b)
    assert after.tensor(b).site


def test_a_copy_is_left_between_two_tensors_that_stay() -> None:
    c = Chain()
    a = c.add("clamp", "image", site=True, bounds=(-1.0, 1.0))
    b = c.add("clamp", a, site=True, bounds=(-1.0, 1.0))
    view = view_of(c)
    change = view.same(view.graph.node_of(b), a)
    assert isinstance(change, Change)
    assert [n.op for n in view.apply(view.graph.node_of(b), change).graph.nodes] == ["clamp", "reshape"]


def test_new_weights_get_names_of_their_own() -> None:
    c = Chain()
    x = c.step("mul", "image", 2.0)
    view = view_of(c)
    nodes = Node("constant", (), "@c", kernel="@c", kernel_shape=(4,)), Node("mul", ("image", "@c"), x)
    after = view.apply(view.graph.node_of(x), Change("mul", nodes, weights={"@c": np.ones(4)}))
    check(after.graph)
    made = after.graph.node_of(x).inputs[1]
    assert made.startswith("~")
    assert after.known(made) is not None
    assert len(after.graph.nodes) == 2  # the old constant went


def test_a_rule_that_overflows_is_refused() -> None:
    c = Chain()
    x = c.step("div", "image", 0.0)
    view = view_of(c)
    division = next(p for p in PATTERNS if p.name == "multiply_not_divide")
    assert division.answer(view, view.graph.node_of(x)) == "its numbers are not finite"


def test_order_is_depth_first_and_leaves_the_dead() -> None:
    c = Chain()
    a, b, _ = (c.add(op, "image") for op in ("tanh", "abs", "exp"))
    c.add("sub", b, a)
    graph = c.graph()
    assert [n.op for n in ordered(graph._producers, graph.outputs)] == ["abs", "tanh", "sub"]


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(PATTERNS))
def test_no_change_removes_a_site_an_input_or_an_output(seed: int, pattern: Pattern) -> None:
    graph = drop_dead(tangle(seed))[0]
    view = View(graph, weights_of(graph, {}).arrays)
    for node in graph.nodes:
        answer = pattern.answer(view, node)
        if isinstance(answer, Change):
            after = view.apply(node, answer).graph
            check(after)
            assert {t for t in after.tensors if t.site} == {t for t in graph.tensors if t.site}
            assert (after.inputs, after.outputs) == (graph.inputs, graph.outputs)
            assert len([n for n in after.nodes if n.op != "constant"]) <= len(
                [n for n in graph.nodes if n.op != "constant"]
            )
