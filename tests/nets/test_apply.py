"""The functional door: one forward, its sites, and the traced function that computes the same."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import nets
from research.graph.trace import trace
from research.nets import HandNet, apply
from research.nets.formulation import CANONICAL, SHIFTED
from research.pytrees import flatten
from tests.nets.samples import SMALL as NET
from tests.nets.samples import images, weights

IMAGES = images(NET)
PARAMS, STATS = weights(NET)
NETS = [NET, NET.folded()]


def names(jaxpr: Any) -> Iterator[str]:
    """Names of the marked tensors of a jaxpr, inner calls included, in order."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "name":
            yield equation.params["name"]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(inner, "eqns"):
                yield from names(getattr(inner, "jaxpr", inner))


def test_init_makes_the_shapes_that_were_promised() -> None:
    tiny = HandNet(5, 2, (), 2)
    found, promised = nets.init(tiny, jax.random.key(0)), nets.shapes(tiny)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(lambda s: s.shape, promised)
    other = nets.init(tiny, jax.random.key(1))
    for path, leaf in flatten(found[0]).items():
        assert np.array_equal(leaf, flatten(other[0])[path]) == (not path.endswith("kernel"))
    for path, leaf in flatten(found[1]).items():
        np.testing.assert_array_equal(leaf, np.full(2, float(path.endswith("var"))))


@pytest.mark.parametrize("net", NETS)
def test_the_sites_of_the_spec_are_those_seen(net: HandNet) -> None:
    params, norm_stats = weights(net)
    out = nets.forward(net, params, norm_stats, IMAGES)
    assert tuple(out.taps) == net.sites()
    fn, shapes, image = nets.traced(net)
    assert tuple(names(jax.make_jaxpr(fn)(shapes, image).jaxpr)) == net.sites()
    assert out.keypoints.shape == (2, 21, 2)
    np.testing.assert_array_equal(out.taps["head"].reshape(2, 21, 2) + 0.5, out.keypoints)
    np.testing.assert_array_equal(out.taps["image"][..., 0], IMAGES)


def test_activations_lie_in_0_to_6_except_where_the_network_is_linear() -> None:
    taps = nets.forward(NET, PARAMS, STATS, 20.0 * IMAGES).taps
    for site in ("stem", "b0/expand", "b1/depthwise", "neck", "flat"):
        assert float(taps[site].min()) == 0.0
        assert float(taps[site].max()) <= 6.0
    for site in ("b0/project", "b1/project", "b0/add", "head"):
        assert float(taps[site].min()) < 0.0
    np.testing.assert_array_equal(taps["b0/add"], taps["stem"] + taps["b0/project"])
    np.testing.assert_array_equal(taps["flat"], taps["neck"].reshape(2, -1))


@pytest.mark.parametrize("train", [False, True])
def test_both_formulations_agree_for_the_whole_network(train: bool) -> None:
    pull = jnp.asarray(np.random.default_rng(1).normal(size=(2, 21, 2)), jnp.float32)

    def run(formulation: str) -> tuple[Any, nets.Forward]:
        def scalar(params: Any, pixels: jax.Array) -> tuple[jax.Array, nets.Forward]:
            out = nets.forward(NET, params, STATS, pixels, train=train, formulation=formulation)
            return jnp.sum(pull * out.keypoints), out

        return jax.jit(jax.grad(scalar, (0, 1), has_aux=True))(PARAMS, IMAGES)

    (grads, out), (its_grads, its_out) = run(CANONICAL), run(SHIFTED)
    pairs = zip(jax.tree.leaves((grads, out)), jax.tree.leaves((its_grads, its_out)), strict=True)
    for mine, its in pairs:
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-5 * max(1.0, float(jnp.abs(its).max())))
    assert float(jnp.abs(grads[0]["stem"]["kernel"]).max()) > 1e-3


def test_training_moves_the_statistics_and_evaluation_does_not() -> None:
    still = nets.forward(NET, PARAMS, STATS, IMAGES)
    assert still.norm_stats is STATS
    moved = nets.forward(NET, PARAMS, STATS, IMAGES, train=True)
    before, after = flatten(STATS), flatten(moved.norm_stats)
    assert before.keys() == after.keys()
    assert all(not np.array_equal(before[path], after[path]) for path in before)
    assert not np.allclose(still.keypoints, moved.keypoints)
    alone = [nets.forward(NET, PARAMS, STATS, IMAGES[i : i + 1]).keypoints for i in range(2)]
    np.testing.assert_allclose(jnp.concatenate(alone), still.keypoints, atol=1e-5)
    folded, _ = weights(NET.folded())
    assert nets.forward(NET.folded(), folded, {}, IMAGES, train=True).norm_stats == {}


def test_a_site_function_acts_there_and_taps_are_from_before_it() -> None:
    plain = nets.forward(NET, PARAMS, STATS, IMAGES)
    out = nets.forward(NET, PARAMS, STATS, IMAGES, sites={"b0/add": lambda x: 0.0 * x})
    order = NET.sites()
    at = order.index("b0/add")
    for site in order[: at + 1]:
        np.testing.assert_array_equal(out.taps[site], plain.taps[site])
    expand = flatten(STATS)["b1/expand/norm/mean"], flatten(STATS)["b1/expand/norm/var"]
    norm = PARAMS["b1"]["expand"]["norm"]
    silent = jnp.clip(
        norm["bias"] - expand[0] * norm["scale"] / jnp.sqrt(expand[1] + nets.NORM_EPSILON), 0, 6
    )
    np.testing.assert_allclose(out.taps["b1/expand"][0, 0, 0], silent, atol=1e-5)
    head = nets.forward(NET, PARAMS, STATS, IMAGES, sites={"head": lambda x: 0.0 * x})
    np.testing.assert_array_equal(head.keypoints, np.full((2, 21, 2), 0.5))


def test_the_first_rule_that_matches_a_site_acts() -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str) -> Any:
        return lambda x: (seen.append((name, x.shape)), x)[1]

    plain = nets.forward(NET, PARAMS, STATS, IMAGES)
    rules = {"b?/add": note("add"), "b0/*": note("b0"), "*": note("rest")}
    out = nets.forward(NET, PARAMS, STATS, IMAGES, sites=rules)
    np.testing.assert_array_equal(out.keypoints, plain.keypoints)
    expected = ["add" if s.endswith("add") else "b0" if s.startswith("b0") else "rest" for s in NET.sites()]
    assert [name for name, _ in seen] == expected
    assert [shape for _, shape in seen] == [tap.shape for tap in plain.taps.values()]


@pytest.mark.parametrize(
    ("sites", "says"),
    [
        ({"b0/ad": None}, "site rule 'b0/ad' matches nothing; did you mean 'b0/add'"),
        ({"qqqqqq": None}, "known: image, stem"),
        ({"*": lambda x: x, "b0/add": None}, "site rule 'b0/add' matches nothing"),
    ],
)
def test_a_site_rule_that_never_acts_raises(sites: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        nets.forward(NET, PARAMS, STATS, IMAGES, sites=sites)


@pytest.mark.parametrize("shape", [(2, 8, 9), (2, 9, 8), (2, 9, 9, 1), (9, 9), (2, 64, 64)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"images have shape \[.*\]; this network takes \[N,9,9\] grey crops"
    ):
        nets.forward(NET, PARAMS, STATS, jnp.zeros(shape))


@pytest.mark.parametrize("net", NETS)
def test_the_traced_function_is_the_folded_forward(net: HandNet) -> None:
    fn, shapes, image = nets.traced(net)
    params, _ = weights(net.folded())
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda s: s.shape, shapes)
    assert image.shape == (1, 9, 9, 1)
    flat = fn(params, IMAGES[:1, :, :, None])
    expected = nets.forward(net.folded(), params, {}, IMAGES[:1])
    assert flat.shape == (1, 42)
    np.testing.assert_allclose(flat.reshape(1, 21, 2) + 0.5, expected.keypoints, rtol=1e-5, atol=1e-5)


def test_the_graph_is_the_same_whatever_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = set()
    for formulation in (CANONICAL, SHIFTED):
        monkeypatch.setattr(apply, "fastest", lambda found=formulation: found)
        hashes.add(trace(*nets.traced(NET)).hash)
        hashes.add(trace(*nets.traced(NET.folded())).hash)
    assert len(hashes) == 1
    assert trace(*nets.traced(NET.resized({"b0": 4}))).hash not in hashes


def test_the_fastest_formulation_is_what_forward_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def convolutions() -> int:
        jaxpr = jax.make_jaxpr(lambda p, x: nets.forward(NET, p, STATS, x).keypoints)(PARAMS, IMAGES)
        return str(jaxpr).count("conv_general_dilated[")

    monkeypatch.setattr(apply, "fastest", lambda: CANONICAL)
    assert convolutions() == 2 + 3 * len(NET.blocks)
    monkeypatch.setattr(apply, "fastest", lambda: SHIFTED)
    assert convolutions() == 1  # the stem


def test_a_formulation_may_be_named() -> None:
    for formulation, convolutions in ((CANONICAL, 2 + 3 * len(NET.blocks)), (SHIFTED, 1)):

        def run(params: Any, x: jax.Array, how: str = formulation) -> jax.Array:
            return nets.forward(NET, params, STATS, x, formulation=how).keypoints

        assert str(jax.make_jaxpr(run)(PARAMS, IMAGES)).count("conv_general_dilated[") == convolutions


@pytest.mark.parametrize("train", [False, True])
def test_bfloat16_computes_nearly_the_same_and_hands_out_float32(train: bool) -> None:
    seen: list[Any] = []

    def look(x: jax.Array) -> jax.Array:
        seen.append(x.dtype)
        return x

    wide = nets.forward(NET, PARAMS, STATS, IMAGES, train=train)
    narrow = nets.forward(
        NET, PARAMS, STATS, IMAGES, train=train, sites={"*": look}, compute="bfloat16", formulation=CANONICAL
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == set(seen) == {np.dtype("float32")}
    difference = float(jnp.max(jnp.abs(wide.keypoints - narrow.keypoints)))
    assert 0.0 < difference < 0.05


def test_bfloat16_is_nowhere_unless_asked_for() -> None:
    def text(compute: str) -> str:
        def run(params: Any, x: jax.Array) -> jax.Array:
            return nets.forward(NET, params, STATS, x, train=True, compute=compute).keypoints

        return str(jax.make_jaxpr(run)(PARAMS, IMAGES))

    assert "bf16" not in text("float32")
    assert "bf16[2," in text("bfloat16")


def test_gradients_of_a_bfloat16_forward_are_float32() -> None:
    @functools.partial(jax.jit, static_argnames="compute")
    def gradient(params: Any, compute: str) -> Any:
        def loss(params: Any) -> jax.Array:
            return jnp.sum(nets.forward(NET, params, STATS, IMAGES, compute=compute).keypoints ** 2)

        return jax.grad(loss)(params)

    wide, narrow = (gradient(PARAMS, compute) for compute in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {np.dtype("float32")}
    one, other = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (wide, narrow))
    assert one @ other > 0.95 * np.linalg.norm(one) * np.linalg.norm(other) > 0.0
