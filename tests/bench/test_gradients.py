"""The bench of slopes finds a wrong slope, a wrong corner and a missed bar; the real ones pass on a few networks."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.bench import gradients
from research.bench.gradients import BARS, ROWS, built, differences, missed, not_finite, random_tables, sample
from research.npu import EXACT, THROUGH, U55_128, U85_128, Chip, Choices, Cost, LayerTable


@pytest.fixture(scope="module")
def networks() -> list:
    return sample(3, 1)


def test_every_missed_bar_is_named() -> None:
    good = {"a": dict(BARS)}
    assert missed(good) == []
    assert missed({"a": BARS | {"corner": 2e-6}}) == ["a: corner 2e-06, at most 1e-06"]
    assert missed({"a": BARS | {"difference": float("nan")}}) == ["a: difference nan, at most 1e-06"]


def test_random_networks_hold_every_operation() -> None:
    table, choices = random_tables(np.random.default_rng(0), 200)
    assert len(np.unique(table.op)) == 21
    assert {field.shape for field in (*table, *choices)} == {(200, gradients.SMALL)}
    assert 0 < float(choices.wide.min()) < float(choices.wide.max()) < 1


def test_what_is_built_follows_the_graph(networks: list) -> None:
    network = networks[0]
    neutral = Choices(*(jnp.full(ROWS, value) for value in (1.0, 1.0, 0.0, 0.0)))
    same = built(network, neutral)
    np.testing.assert_array_equal(same.carried[: len(network.names)], network.table.carried)
    np.testing.assert_array_equal(same.plain_in[: len(network.names)], network.table.plain_in)
    other = built(network, Choices(*(jnp.full(ROWS, value) for value in (1.0, 0.0, 1.0, 1.0))))
    assert set(np.unique(other.bits)) == {16.0}
    assert float(other.plain_out.min()) == 1
    assert float(other.carries_add.sum()) <= float(same.carries_add.sum())


def pretend(monkeypatch: pytest.MonkeyPatch, ms: Callable[[LayerTable, Choices], jax.Array]) -> None:
    """Another price in the bench; its programs are forgotten."""
    gradients._ms.clear_cache()
    gradients._finite.clear_cache()
    fields = len(Cost._fields)
    monkeypatch.setattr(gradients, "cost", lambda table, chip, own, *, rounding: Cost(*[ms(table, own)] * fields))


@pytest.mark.parametrize("wrong", [False, True])
def test_a_slope_that_is_not_finite_is_counted(wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def ms(table: LayerTable, own: Choices) -> jax.Array:
        steep = jnp.sqrt(jnp.maximum(table.ic - 1e9, 0.0))  # 0, with a slope of 0 / 0
        return jnp.sum(2 * table.ic) + sum(jnp.sum(share) for share in own) + (jnp.sum(steep) if wrong else 0.0)

    pretend(monkeypatch, ms)
    monkeypatch.setattr(gradients, "BATCH", 50)
    assert not_finite(U85_128, THROUGH, 0, 60) == (100 if wrong else 0)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_wrong_slope_is_found(wrong: bool, networks: list, monkeypatch: pytest.MonkeyPatch) -> None:
    def ms(table: LayerTable, own: Choices) -> jax.Array:
        hidden = jax.lax.stop_gradient(table.oc) if wrong else table.oc
        return 10 + sum(jnp.sum(share**2) for share in own) + jnp.sum(table.oc + hidden)

    pretend(monkeypatch, ms)
    gap, edges = differences(networks, U85_128, 0)
    assert (gap > 0.1) == wrong
    assert edges == 0
    if wrong:  # an edge at every point: nothing is left to compare
        pretend(monkeypatch, lambda table, own: jnp.sum(jnp.ceil(table.oc * 1e9)) + sum(map(jnp.sum, own)))
        assert differences(networks, U85_128, 0)[1] > 0


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    gradients._ms.clear_cache()
    gradients._finite.clear_cache()


@pytest.mark.slow
@pytest.mark.parametrize("chip", [U85_128, U55_128], ids=lambda chip: chip.name)
def test_the_price_passes(chip: Chip, networks: list) -> None:
    gap, edges = differences(networks, chip, 1)
    assert gap <= BARS["difference"]
    assert edges <= BARS["edges_share"]
    assert gradients.corner_gap(networks, chip, 1) <= BARS["corner"]
    assert gradients.snapping_gap(networks, chip, 1) <= BARS["snapping_percent"]
    assert [not_finite(chip, rounding, 1, 2000) for rounding in (EXACT, THROUGH)] == [0, 0]
