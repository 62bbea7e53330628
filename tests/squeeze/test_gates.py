"""Width gates: one hard choice read by network and cost, decoded into a network within the budget."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import nets
from research.pytrees import flatten
from research.squeeze import Variables, WidthGates, close, compaction, fold
from research.squeeze.gates import choose, decode, importance
from tests.squeeze.samples import KEY, LANE, NET, NOW, context, images, linear_ms, setting, weights

FORWARD = jax.jit(nets.forward, static_argnums=0)
PARAMS, STATS = weights()
LOGITS = {"b0": jnp.asarray([-1.0, 2.0]), "b1": jnp.asarray([0.5, -0.5, 1.0])}
LEARNED = {"logits": LOGITS, "multiplier": jnp.zeros(())}
OPEN = {"b0": np.arange(4, 8), "b1": np.array([0, 1, 2, 3, 8, 9, 10, 11])}
LOGIT = st.floats(-4, 4, width=32, allow_subnormal=False)


# The choice


@given(st.lists(LOGIT, min_size=3, max_size=3))
def test_choices_are_hard_with_the_gradient_of_a_sigmoid(values: list[float]) -> None:
    logits = np.asarray(values, np.float32)
    gates = np.asarray(choose(jnp.asarray(logits)))
    expected = logits > 0
    expected[np.argmax(logits)] = True
    np.testing.assert_array_equal(gates, expected)
    soft = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(jax.jacrev(choose)(jnp.asarray(logits)), np.diag(soft * (1 - soft)), rtol=1e-4)


def test_the_strongest_gate_stays_open() -> None:
    np.testing.assert_array_equal(choose(jnp.asarray([-3.0, -1.0, -2.0])), [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(choose(jnp.asarray([-1.0, -1.0])), [1.0, 0.0])
    np.testing.assert_array_equal(choose(jnp.asarray([0.0, 0.0, 1e-30])), [0.0, 0.0, 1.0])


def test_the_view_removes_exactly_the_closed_channels() -> None:
    transform = WidthGates(1.0, LANE).build(setting())
    seen = transform.view(PARAMS, LEARNED, {}, NOW, KEY)
    gated = {path: group.name for group in NET.groups() for path in group.gated}
    for path, leaf in flatten(PARAMS).items():
        expected = np.asarray(leaf)
        if path in gated:
            expected = np.where(np.isin(np.arange(len(leaf)), OPEN[gated[path]]), expected, 0.0)
        np.testing.assert_array_equal(flatten(seen)[path], expected)
    for train in (False, True):
        before = nets.forward(NET, PARAMS, STATS, images(), train=train).taps
        after = nets.forward(NET, seen, STATS, images(), train=train).taps
        np.testing.assert_array_equal(after["b0/expand"], before["b0/expand"])
        depth = np.array(before["b0/depthwise"])
        assert depth[..., :4].any()
        depth[..., :4] = 0.0
        np.testing.assert_allclose(after["b0/depthwise"], depth, atol=1e-6)
        assert not after["b1/depthwise"][..., 4:8].any()


def test_the_width_that_is_priced_is_the_width_that_is_open() -> None:
    priced: list[Mapping[str, jax.Array]] = []

    def latency_ms(widths: Mapping[str, jax.Array]) -> jax.Array:
        priced.append(widths)
        return linear_ms(widths)

    transform = WidthGates(0.1, LANE).build(setting(latency_ms=latency_ms))
    rng = np.random.default_rng(0)
    for _ in range(5):
        logits = {name: jnp.asarray(rng.normal(size=n), jnp.float32) for name, n in (("b0", 2), ("b1", 3))}
        learned = LEARNED | {"logits": logits}
        seen = flatten(transform.view(PARAMS, learned, {}, NOW, KEY))
        transform.terms(context(learned=learned))
        for group in NET.groups():
            width = int((seen[group.gated[0]] != 0).sum())
            assert {int((seen[path] != 0).sum()) for path in group.gated} == {width}
            assert float(priced[-1][group.name]) == width
    assert len(priced) == 5


# The budget


def test_the_term_closes_gates_and_raises_the_multiplier_while_over_budget() -> None:
    def budget(learned: Any, budget_ms: float) -> jax.Array:
        terms = WidthGates(budget_ms, LANE, penalty=2.0).build(setting()).terms(context(learned=learned))
        assert set(terms) == {"budget"}
        return terms["budget"]

    # 4 + 8 channels at 0.01 ms each: 0.12 ms
    value, grads = jax.value_and_grad(budget)(LEARNED, 0.1)
    assert float(value) == pytest.approx(0.5 * 2.0 * 0.2**2, rel=1e-4)
    assert float(grads["multiplier"]) == pytest.approx(0.2, rel=1e-4)
    for name, logits in LOGITS.items():
        soft = jax.nn.sigmoid(logits)
        expected = 2.0 * 0.2 * LANE * 0.01 / 0.1 * soft * (1 - soft)
        np.testing.assert_allclose(grads["logits"][name], expected, rtol=1e-4)
    value, grads = jax.value_and_grad(budget)(LEARNED, 0.2)
    assert float(value) == 0.0
    assert not any(leaf.any() for leaf in jax.tree.leaves(grads))


def test_a_budget_below_the_narrowest_network_is_refused() -> None:
    WidthGates(0.081, LANE).check(setting())
    says = r"infeasible budget: 0.079 ms, but the narrowest network takes 0.080 ms; raise budget_ms"
    with pytest.raises(ValueError, match=says):
        WidthGates(0.079, LANE).check(setting())
    with pytest.raises(ValueError, match=says):
        WidthGates(0.079, LANE).settle(setting(), LEARNED, {})(NET, Variables(PARAMS, STATS), None)


def test_what_cannot_be_gated() -> None:
    with pytest.raises(ValueError, match="group 'b1': 12 is not a multiple of lane=8"):
        WidthGates(1.0, 8).build(setting())
    with pytest.raises(ValueError, match="group 'b0' has no norm to gate: gates act before folding"):
        WidthGates(1.0, LANE).build(setting(NET.folded()))


# The start


def test_importance_is_the_standardised_size_of_a_lane() -> None:
    group = NET.groups()[1]
    flat = flatten(PARAMS)
    kernel, scale = np.asarray(flat["b1/project/kernel"]), np.asarray(flat["b1/depthwise/norm/scale"])
    size = np.array([np.linalg.norm(kernel[:, :, c, :]) * abs(scale[c]) for c in range(12)])
    lanes = size.reshape(3, 4).mean(axis=1)
    found = np.asarray(importance(group, flat, 4))
    np.testing.assert_allclose(found, (lanes - lanes.mean()) / lanes.std(), rtol=1e-4)
    flat["b1/depthwise/norm/scale"] = jnp.ones(12)
    flat["b1/project/kernel"] = jnp.ones_like(flat["b1/project/kernel"])
    alike = importance(group, flat, 4)
    assert float(jnp.ptp(alike)) == 0.0
    assert bool(jnp.isfinite(alike).all())


def test_gates_start_around_their_logit_in_order_of_importance() -> None:
    transform = WidthGates(1.0, LANE, start=1.5).build(setting())
    learned, state = transform.init(KEY, PARAMS)
    assert state == {}
    assert float(learned["multiplier"]) == 0.0
    for group in NET.groups():
        logits = learned["logits"][group.name]
        assert logits.shape == (group.size // LANE,)
        assert float(jnp.mean(logits)) == pytest.approx(1.5, abs=1e-5)
        np.testing.assert_array_equal(
            np.argsort(logits), np.argsort(importance(group, flatten(PARAMS), LANE))
        )


def test_smoke_starts_with_gates_closed() -> None:
    small = WidthGates(0.5, penalty=3.0).smoke()
    params, _ = nets.shapes(NET.smoke())
    params = jax.tree.map(
        lambda s: jnp.asarray(np.random.default_rng(0).normal(size=s.shape), jnp.float32), params
    )
    learned, _ = small.build(setting(NET.smoke())).init(KEY, params)
    for logits in learned["logits"].values():
        assert 0.0 < float(choose(logits).sum()) < len(logits)
    small.check(setting(NET.smoke()))


# Decoding


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], int, float, dict[str, np.ndarray]]:
    """Logits, lane, budget and, a group, the price of every number of open gates: any monotone staircase."""
    lane = draw(st.sampled_from([1, 4, 8]))
    logits, prices = {}, {}
    for name in ("x", "y", "z")[: draw(st.integers(1, 3))]:
        values = draw(st.lists(LOGIT, min_size=1, max_size=6))
        rises = draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 5.0, 0.25]), min_size=len(values), max_size=6))
        logits[name] = np.asarray(values, np.float32)
        prices[name] = np.cumsum(rises[: len(values)])
    return logits, lane, draw(st.sampled_from([0.0, 0.5, 2.0, 6.0, 12.0, 100.0])), prices


@settings(max_examples=150)
@given(problems())
def test_decoding_meets_the_budget_by_construction(problem: tuple) -> None:
    logits, lane, budget_ms, prices = problem

    def latency_ms(widths: Mapping[str, int]) -> float:
        """A sum of staircases, and a penalty for all groups being wide: monotone, not separable."""
        steps = [widths[name] // lane for name in prices]
        return sum(prices[n][s - 1] for n, s in zip(prices, steps, strict=True)) + 0.1 * (min(steps) - 1)

    least = latency_ms(dict.fromkeys(logits, lane))
    if least > budget_ms:
        with pytest.raises(ValueError, match="infeasible budget"):
            decode(logits, lane, budget_ms, latency_ms)
        return
    keep = decode(logits, lane, budget_ms, latency_ms)
    widths = {name: len(index) for name, index in keep.items()}
    assert list(keep) == list(logits)
    assert latency_ms(widths) <= budget_ms
    for name, values in logits.items():
        gates = np.unique(keep[name] // lane)
        np.testing.assert_array_equal(keep[name], (gates[:, None] * lane + np.arange(lane)[None, :]).ravel())
        closed = np.setdiff1d(np.arange(len(values)), gates)
        assert len(gates) >= 1
        assert not len(closed) or values[gates].min() >= values[closed].max()  # the strongest are kept
        wanted = np.setdiff1d(np.flatnonzero(values > 0), gates)  # open gates that the budget had to close
        if len(wanted):
            assert latency_ms(widths | {name: widths[name] + lane}) > budget_ms


def test_decoding_closes_the_weakest_of_all_groups_first() -> None:
    logits = {"x": np.array([1.0, 3.0]), "y": np.array([2.0, 0.5, 4.0])}

    def open_gates(budget_ms: float) -> dict[str, list[int]]:
        kept = decode(logits, 1, budget_ms, lambda widths: float(sum(widths.values())))
        return {name: index.tolist() for name, index in kept.items()}

    assert open_gates(5) == {"x": [0, 1], "y": [0, 1, 2]}
    assert open_gates(4) == {"x": [0, 1], "y": [0, 2]}
    assert open_gates(3) == {"x": [1], "y": [0, 2]}
    assert open_gates(2) == {"x": [1], "y": [2]}


# Settling


@pytest.mark.parametrize("budget_ms", [0.08, 0.12, 0.17])
def test_settling_cuts_the_decoded_network_out(budget_ms: float) -> None:
    where = setting()
    link = WidthGates(budget_ms, LANE)
    net, variables, report = link.settle(where, LEARNED, {})(NET, Variables(PARAMS, STATS), None)
    assert report["widths"] == {g.name: g.size for g in net.groups()}
    assert report["latency_ms"] == pytest.approx(float(where.latency_ms(report["widths"])), rel=1e-6)
    assert report["latency_ms"] <= report["budget_ms"] == budget_ms
    assert {name: len(index) for name, index in report["kept"].items()} == report["widths"]
    kept = {name: np.asarray(index) for name, index in report["kept"].items()}
    closed = close(NET.groups(), kept, PARAMS)
    before, after = FORWARD(NET, closed, STATS, images()), FORWARD(net, *variables, images())
    np.testing.assert_allclose(after.keypoints, before.keypoints, rtol=1e-5, atol=1e-5)
    if budget_ms == 0.12:  # exactly what the gates chose: nothing is changed by settling
        assert jax.tree.all(jax.tree.map(np.array_equal, kept, OPEN))
        view = link.build(where).view(PARAMS, LEARNED, {}, NOW, KEY)
        np.testing.assert_allclose(after.keypoints, FORWARD(NET, view, STATS, images()).keypoints, atol=1e-5)


def test_settling_a_folded_network_is_refused() -> None:
    net, variables, _ = fold(nets.NORM_EPSILON)(NET, Variables(PARAMS, STATS), None)
    with pytest.raises(ValueError, match="has no norm to gate"):
        WidthGates(1.0, LANE).build(setting(net))
    smaller, _, report = compaction(setting(net), LOGITS, LANE, 0.12)(net, variables, None)
    assert smaller == net.resized(report["widths"])
