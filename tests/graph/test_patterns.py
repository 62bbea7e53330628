"""Each structural pattern on the graph it is for, and on the graph where it must not."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.interpret import interpret_float
from research.graph.matching import BETWEEN, View
from research.graph.patterns import activation_of, bounds_of, reach_of, within
from research.graph.rewrite import optimise
from research.graph.weights import weights_of
from tests.graph.chains import IMAGE, Chain, named, rewritten

PADS = ((0, 0), (1, 1), (1, 1), (0, 0))
bound = st.floats(-8, 8) | st.sampled_from([-inf, inf, 0.0, 6.0])


def reasons(chain: Chain, name: str) -> list[str]:
    _, applied, refused = rewritten(chain.graph(), name)
    assert applied == ()
    return [r.reason for r in refused]


@given(*[st.tuples(bound, bound).map(lambda b: (min(b), max(b))) for _ in range(2)])
def test_bounds_of_two_clamps_are_those_of_numpy(
    first: tuple[float, float], second: tuple[float, float]
) -> None:
    x = np.linspace(-9, 9, 73)
    low, high = within(first, second)
    assert np.array_equal(np.clip(np.clip(x, *first), *second), np.clip(x, low, high))
    reach = (0.0, 2.0)
    found, inside = activation_of(first, reach), x[(x >= 0) & (x <= 2)]
    if found is not None:
        limits = {"none": (-inf, inf), "relu": (0, inf), "relu6": (0, 6), "relu_n1_to_1": (-1, 1)}[found]
        assert np.array_equal(np.clip(inside, *first), np.clip(inside, *limits))


def test_activations_are_found_by_their_bounds() -> None:
    assert [activation_of(b) for b in (None, (0.0, 6.0), (0.0, 4.0), (-1.0, 1.0), (0.0, inf))] == [
        None, "relu6", None, "relu_n1_to_1", "relu",
    ]  # fmt: skip
    assert activation_of((-inf, 6.0), (0.0, inf)) == "relu6"
    assert activation_of((-5.0, 6.0), (-1.0, inf)) is None


def test_reach_follows_what_only_moves_numbers() -> None:
    c = Chain()
    x = c.add("logistic", "image")
    y = c.add("pad", c.add("max_pool", x, window=(2, 2)), spans=PADS, alpha=-3.0)
    z = c.add("reshape", c.add("concat", y, y, axis=3), shape=(1, 7 * 6 * 8))
    m = c.add("avg_pool", x, window=(2, 2))
    n = c.step("mul", m, 2.0, activation="relu6")
    graph = c.graph(z, n)
    view = View(graph, weights_of(graph, {}).arrays)
    assert [reach_of(view, t) for t in ("image", x, z, m, n)] == [
        (-inf, inf), (0.0, 1.0), (-3.0, 1.0), (0.0, inf), (0.0, 6.0),
    ]  # fmt: skip
    assert reach_of(view, graph.node_of(n).inputs[1]) == (2.0, 2.0)
    assert bounds_of(graph.node_of(n)) == (0.0, 6.0)


@pytest.mark.parametrize(
    ("op", "more"),
    [
        ("pad", {"spans": ((0, 0),) * 4}), ("slice", {"spans": ((0, 1),) * 4, "shape": IMAGE}),
        ("transpose", {"axes": (0, 1, 2, 3)}), ("resize", {"mode": "bilinear/half_pixel", "shape": IMAGE}),
        ("reshape", {"shape": IMAGE}), ("concat", {"axis": 2}), ("avg_pool", {}), ("max_pool", {}),
        ("clamp", {"bounds": (-inf, inf)}), ("depth_to_space", {"window": (1, 1)}),
    ],
)  # fmt: skip
def test_what_changes_nothing_goes(op: str, more: dict) -> None:
    c = Chain()
    c.add("abs", c.add(op, c.add("tanh", "image"), **more))
    assert rewritten(c.graph(), "drop_identity")[0] == ["tanh", "abs"]


@pytest.mark.parametrize(
    ("op", "value", "goes"),
    [("mul", 1.0, True), ("mul", np.ones(4), True), ("add", 0.0, True), ("sub", [0.0] * 4, True), ("div", 1.0, True),
     ("mul", 0.0, False), ("add", 1.0, False), ("mul", [1, 1, 1, 2], False)],
)  # fmt: skip
def test_neutral_constants_go_on_either_side(op: str, value: object, goes: bool) -> None:
    for flip in (False, True) if op in ("add", "mul") else (False,):
        c = Chain()
        sides = [c.add("tanh", "image"), c.constant(value)]
        c.add("abs", c.add(op, *sides[:: -1 if flip else 1]))
        assert rewritten(c.graph(), "drop_identity")[0] == (["tanh", "abs"] if goes else ["tanh", op, "abs"])


def test_one_minus_x_and_an_activation_stay() -> None:
    c = Chain()
    c.add("abs", c.add("sub", c.constant(0.0), "image"))
    c.step("mul", c.nodes[-1].output, 1.0, activation="relu")
    assert rewritten(c.graph(), "drop_identity")[0] == ["sub", "abs", "mul"]


def test_equal_nodes_become_one_also_with_operands_exchanged() -> None:
    c = Chain()
    a, b = c.add("tanh", "image"), c.add("abs", "image")
    c.add("sub", c.add("add", a, b), c.add("add", b, c.add("tanh", "image")))
    assert sorted(rewritten(c.graph(), "cse")[0]) == ["abs", "add", "sub", "tanh"]


def test_equal_attributes_with_other_shapes_are_not_equal() -> None:
    c = Chain((1, 4, 4, 4))
    a, b = (c.add("reshape", "image", shape=s) for s in ((1, 16, 4), (1, 8, 8)))
    assert rewritten(c.graph(a, b), "cse")[0] == ["reshape", "reshape"]


def test_conversions_to_formats_that_the_graph_does_not_know_stay() -> None:
    c = Chain()
    a, b = c.add("quantize", "image"), c.add("quantize", "image")
    assert rewritten(c.graph(a, b))[0] == ["quantize", "quantize"]


def test_two_equal_sites_both_stay_and_one_is_a_copy() -> None:
    c = Chain()
    a, b = (c.add("tanh", "image", name=n, site=True) for n in ("left", "right"))
    result, _, _ = optimise(c.graph(c.add("sub", a, b)), {}, named("cse"))
    assert {n.output: n.op for n in result.nodes} == {"left": "tanh", "right": "reshape", "sub_2": "sub"}


@pytest.mark.parametrize(
    ("name", "op", "inner", "outer", "attribute"),
    [
        ("merge_clamps", "clamp", {"bounds": (-2.0, 3.0)}, {"bounds": (0.0, 6.0)}, (0.0, 3.0)),
        ("merge_reshapes", "reshape", {"shape": (1, 120)}, {"shape": (1, 30, 4)}, (1, 30, 4)),
        ("merge_transposes", "transpose", {"axes": (0, 2, 3, 1)}, {"axes": (0, 3, 1, 2)}, (0, 1, 2, 3)),
        ("merge_pads", "pad", {"spans": PADS}, {"spans": PADS}, ((0, 0), (2, 2), (2, 2), (0, 0))),
    ],
)
def test_two_of_a_kind_merge(name: str, op: str, inner: dict, outer: dict, attribute: tuple) -> None:
    c = Chain()
    c.add(op, c.add(op, "image", **inner), **outer)
    result, params, _ = optimise(c.graph(), {}, named(name))
    assert len(result.nodes) == 1
    node = result.nodes[0]
    assert attribute in (node.bounds, node.axes, node.spans, result.shape(node.output))
    x = np.random.default_rng(0).normal(0, 3, (2, *IMAGE[1:])).astype(np.float32)
    assert np.array_equal(interpret_float(c.graph(), {}, x), interpret_float(result, params, x))


def test_merges_that_must_not_be() -> None:
    c = Chain()
    c.add("pad", c.add("pad", "image", spans=PADS), spans=PADS, alpha=1.0)
    assert reasons(c, "merge_pads") == ["their values differ"]
    c = Chain()
    c.add("clamp", c.add("clamp", "image", bounds=(0.0, 6.0)), bounds=(-1.0, 1.0))
    assert reasons(c, "merge_clamps") == ["no activation clamps to [0, 1]"]
    c = Chain()
    c.add("reshape", c.add("reshape", "image", shape=(1, 120), site=True), shape=(1, 30, 4))
    assert reasons(c, "merge_reshapes") == [BETWEEN]


def test_concats_merge_along_one_axis_only() -> None:
    for axis, wanted in ((3, ["tanh", "concat"]), (2, ["tanh", "concat", "concat"])):
        c = Chain()
        y = c.add("tanh", "image")
        inner = c.add("concat", "image", y, axis=axis)
        other = "image" if axis == 3 else c.add("concat", "image", "image", axis=2)
        c.add("concat", inner, other, axis=3)
        assert rewritten(c.graph(), "merge_concats")[0][: len(wanted)] == wanted
    c = Chain()
    inner = c.add("concat", "image", "image", axis=3)
    c.add("concat", inner, inner, axis=3)
    assert reasons(c, "merge_concats") == [BETWEEN]


def test_clamps_inside_a_known_reach_go() -> None:
    for op, more in (("softmax", {"alpha": 1.0}), ("logistic", {}), ("clamp", {"bounds": (0.0, 6.0)})):
        c = Chain()
        c.add(
            "abs",
            c.add("clamp", c.add("max_pool", c.add(op, "image", **more), window=(2, 2)), bounds=(0.0, 6.0)),
        )
        assert rewritten(c.graph(), "drop_clamp")[0] == [op, "max_pool", "abs"]
    c = Chain()
    c.add("clamp", c.add("tanh", "image"), bounds=(0.0, 1.0))
    assert rewritten(c.graph(), "drop_clamp")[0] == ["tanh", "clamp"]


@pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 1, 1, 4)])
def test_a_bias_of_any_form_enters_the_layer(shape: tuple[int, ...]) -> None:
    c = Chain()
    c.step("add", c.layer("image", bias=False), np.ones(shape), activation="relu")
    result, _, _ = optimise(c.graph(), {}, named("fuse_bias"))
    assert [(n.op, n.activation) for n in result.nodes] == [("conv", "relu")]
    assert result.nodes[0].bias == c.weight(np.ones(shape))


def test_a_bias_is_refused_after_an_activation_and_on_a_shared_tensor() -> None:
    c = Chain()
    c.step("add", c.layer("image", bias=False, activation="relu"), np.ones(4))
    assert reasons(c, "fuse_bias") == ["the layer's activation comes before the add"]
    c = Chain()
    y = c.layer("image", bias=False)
    c.add("sub", c.step("add", y, np.ones(4)), y)
    assert reasons(c, "fuse_bias") == [BETWEEN]
    c = Chain()
    c.step("add", c.layer("image", bias=False), np.ones((6, 5, 4)))
    assert reasons(c, "fuse_bias") == []


LAYERS = ("conv", "depthwise", "dense", "transpose_conv")


@pytest.mark.parametrize("bounds", [(0.0, inf), (0.0, 6.0), (-1.0, 1.0)])
def test_activations_enter_layers_sums_and_pools(bounds: tuple[float, float]) -> None:
    for op in LAYERS:
        c = Chain()
        c.add(
            "clamp",
            c.layer("image", op, **({"shape": IMAGE} if op == "transpose_conv" else {})),
            bounds=bounds,
        )
        assert rewritten(c.graph(), "fuse_activation")[0] == [op]
    for op in ("add", "sub", "mul"):
        c = Chain()
        c.add("clamp", c.add(op, "image", c.add("tanh", "image")), bounds=bounds)
        assert rewritten(c.graph(), "fuse_add_activation")[0] == ["tanh", op]
    for op in ("max_pool", "avg_pool"):
        c = Chain()
        c.add("clamp", c.add(op, "image", window=(2, 2)), bounds=bounds)
        assert rewritten(c.graph(), "fuse_pool_activation")[0] == [op]


def test_a_second_clamp_may_complete_the_activation() -> None:
    c = Chain()
    c.add("clamp", c.layer("image", activation="relu"), bounds=(-inf, 6.0))
    result, _, _ = optimise(c.graph(), {}, named("fuse_activation"))
    assert [n.activation for n in result.nodes] == ["relu6"]
    c = Chain()
    c.add("clamp", c.layer("image"), bounds=(0.0, 4.0))
    assert reasons(c, "fuse_activation") == ["no activation clamps to [0, 4]"]


def test_a_pool_takes_the_relu_before_it_only_where_no_layer_can() -> None:
    c = Chain()
    c.add("max_pool", c.add("clamp", c.add("tanh", "image"), bounds=(0.0, inf)), window=(2, 2))
    assert rewritten(c.graph(), "swap_pool_relu")[0] == ["tanh", "max_pool"]
    c = Chain()
    c.add("max_pool", c.add("clamp", c.layer("image"), bounds=(0.0, inf)), window=(2, 2))
    result, _, _ = optimise(c.graph(), {})
    assert [(n.op, n.activation) for n in result.nodes] == [("conv", "relu"), ("max_pool", "none")]


@pytest.mark.parametrize(
    ("op", "size", "stride", "spans", "alpha", "reason"),
    [
        ("conv", 6, 1, (1, 1), 0.0, None), ("depthwise", 6, 2, (0, 1), 0.0, None), ("conv", 7, 2, (1, 1), 0.0, None),
        ("conv", 6, 2, (1, 1), 0.0, "SAME would pad by ((0, 1), (0, 1)), this pads by ((1, 1), (1, 1))"),
        ("conv", 6, 1, (1, 1), 1.0, "SAME pads with 0, this with 1"),
        ("avg_pool", 6, 1, (1, 1), 0.0, "an average over SAME padding does not count the padding"),
        ("max_pool", 6, 1, (1, 1), 0.0, "SAME pads a max pool with -infinity, 0 may win"),
        ("max_pool", 6, 1, (1, 1), -inf, None),
    ],
)  # fmt: skip
def test_pads_become_same_where_the_numbers_agree(
    op: str, size: int, stride: int, spans: tuple[int, int], alpha: float, reason: str | None
) -> None:
    c = Chain((1, size, size, 4))
    pad = c.add("pad", "image", spans=((0, 0), spans, spans, (0, 0)), alpha=alpha)
    if op in ("conv", "depthwise"):
        c.layer(pad, op, padding="VALID", strides=(stride, stride))
    else:
        c.add(op, pad, window=(3, 3), strides=(stride, stride))
    graph = c.graph()
    ops, _, refused = rewritten(graph, "fuse_pad")
    assert [r.reason for r in refused] == ([reason] if reason else [])
    assert ops == (["pad", op] if reason else [op])
    x = np.random.default_rng(1).normal(size=(2, size, size, 4)).astype(np.float32)
    result, params, _ = optimise(graph, {}, named("fuse_pad"))
    assert np.array_equal(interpret_float(graph, {}, x), interpret_float(result, params, x))


def test_a_max_pool_of_a_relu_takes_a_pad_of_zeros() -> None:
    c = Chain()
    c.add("max_pool", c.add("pad", c.add("abs", "image"), spans=PADS), window=(3, 3))
    assert rewritten(c.graph(), "fuse_pad")[0] == ["abs", "max_pool"]


def hard_swish(c: Chain, form: int) -> str:
    x = c.add("tanh", "image")
    if form == 0:
        return c.step("div", c.add("mul", x, c.add("clamp", c.step("add", x, 3.0), bounds=(0.0, 6.0))), 6.0)
    if form == 1:
        return c.add("mul", c.step("mul", c.step("add", x, 3.0, activation="relu6"), 1 / 6), x)
    line = c.step("add", c.step("mul", x, 1 / 6), 0.5)
    return c.add("mul", x, c.add("clamp", line, bounds=(0.0, 1.0)))


def test_hard_swish_is_found_however_it_is_written() -> None:
    for form in range(3):
        c = Chain()
        hard_swish(c, form)
        assert rewritten(c.graph(), "make_hard_swish")[0] == ["tanh", "hard_swish"]
    c = Chain()
    x = c.add("tanh", "image")
    c.step("div", c.add("mul", x, c.add("clamp", c.step("add", x, 3.0), bounds=(0.0, 5.0))), 6.0)
    assert "hard_swish" not in rewritten(c.graph(), "make_hard_swish")[0]
    c = Chain()
    x = c.add("tanh", "image")
    gate = c.add("clamp", c.step("add", x, 3.0), bounds=(0.0, 6.0), site=True)
    c.step("div", c.add("mul", x, gate), 6.0)
    assert "hard_swish" not in rewritten(c.graph(), "make_hard_swish")[0]


@pytest.mark.parametrize(
    ("op", "slope", "found"),
    [("maximum", 0.1, True), ("minimum", 3.0, True), ("maximum", 3.0, False), ("minimum", 0.1, False)],
)
def test_leaky_relus_are_found(op: str, slope: float, found: bool) -> None:
    c = Chain()
    x = c.add("tanh", "image")
    c.add(op, c.step("mul", x, slope), x)
    result, _, _ = optimise(c.graph(), {}, named("make_leaky_relu"))
    assert ("leaky_relu" in [n.op for n in result.nodes]) == found
    assert [n.alpha for n in result.nodes if n.op == "leaky_relu"] == [np.float32(slope)] * found
