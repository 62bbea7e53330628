"""A choice at 0 or 1 prices the network built so, between them the price has a slope, and the compiler agrees."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.bench.gradients import built
from research.bench.recipes import Layer, make
from research.npu.chip import U55_128, U85_128, U85_512, Chip
from research.npu.choices import Choices, between, both_widths, chosen
from research.npu.cost import Cost, cost
from research.npu.network import Network, read_network
from research.npu.plan import plan
from research.npu.referee import referee
from research.npu.rounding import THROUGH
from research.npu.table import LayerTable, pad
from tests.npu.networks import hand_network, rows

# Each further chip takes two programs that are slow to compile.
CHIPS = [U85_128, *(pytest.param(chip, marks=pytest.mark.slow) for chip in (U85_512, U55_128))]
on_every_chip = pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
ROWS = 28
NEUTRAL = {"buffered": 1.0, "fused": 1.0, "plain": 0.0, "wide": 0.0}  # what the compiler does with int8


@cache
def network() -> Network:
    return read_network(hand_network(1, False).model)


def table() -> LayerTable:
    return pad(network().table, ROWS)


def choices(**fields: float | jax.Array) -> Choices:
    """The fields given, in every row alike where they are numbers, the rest neutral."""
    full = {name: jnp.broadcast_to(jnp.asarray(v, jnp.float32), (ROWS,)) for name, v in (NEUTRAL | fields).items()}
    return Choices(**full)


def shares(seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2, ROWS), jnp.float32)


@partial(jax.jit, static_argnames="chip")
def price(layers: LayerTable, chip: Chip, own: Choices | None = None) -> Cost:
    return cost(layers, chip, own)


@partial(jax.jit, static_argnames="chip")
def slope(own: Choices, chip: Chip) -> Choices:
    return jax.grad(lambda c: cost(table(), chip, c, rounding=THROUGH).ms)(own)


def same(a: Cost, b: Cost) -> None:
    for name, one, other in zip(Cost._fields, a, b, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=name)


@on_every_chip
def test_corners_are_the_networks_built_so(chip: Chip) -> None:
    each = [{"fused": shares(n), "plain": shares(n + 1), "wide": shares(n + 2)} for n in (0, 3)]
    default = price(table(), chip)
    for fields in ({}, {"fused": 0, "plain": 1, "wide": 1}, *each):
        found = price(table(), chip, choices(**fields))
        same(found, price(pad(built(network(), choices(**fields)), ROWS), chip))
        assert (float(found.ms) > 1.001 * float(default.ms)) == bool(fields)


def test_single_rows_without_buffers() -> None:
    with_all, without = (price(table(), U85_128, choices(buffered=share)) for share in (1, 0))
    staged = np.flatnonzero(np.asarray(with_all.sram_bytes) > np.asarray(without.sram_bytes) * 1.0001)
    assert len(staged) > 5
    for row in staged[:3].tolist():
        found = price(table(), U85_128, choices(buffered=jnp.ones(ROWS).at[row].set(0)))
        np.testing.assert_allclose(found.cycles[row], without.cycles[row], rtol=1e-6)
        np.testing.assert_allclose(found.cycles[:row], with_all.cycles[:row], rtol=1e-6)


@on_every_chip
@pytest.mark.parametrize("field", Choices._fields)
def test_between_corners_the_price_lies_between_and_has_a_slope(field: str, chip: Chip) -> None:
    path = [float(price(table(), chip, choices(**{field: n / 4})).ms) for n in range(5)]
    grows = float(np.sign(path[-1] - path[0]))
    assert grows == (0.0 if field == "fused" and not chip.chains_adds else 1.0 if field in ("plain", "wide") else -1.0)
    assert (np.diff(path) * grows > -0.002 * path[0]).all()
    for share in (0.0, 0.4, 1.0):
        found = slope(choices(**{field: share}), chip)
        assert all(np.isfinite(column).all() for column in found)
        if share == 0.4:
            assert np.sign(np.sum(getattr(found, field))) == grows


def test_networks_and_choices_can_be_mapped() -> None:
    each = [choices(**dict.fromkeys(NEUTRAL, share)) for share in (0.0, shares(7), 0.3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)
    together = jax.vmap(lambda own: price(table(), U85_128, own).ms)(stacked)
    np.testing.assert_allclose(together, [price(table(), U85_128, own).ms for own in each], rtol=1e-6)


@pytest.mark.parametrize("field", Choices._fields)
@pytest.mark.parametrize("share", [np.float32(0.5), np.ones(3, np.float32)], ids=["scalar", "short"])
def test_a_choice_of_other_rows_is_refused(field: str, share: np.ndarray) -> None:
    with pytest.raises(ValueError, match=rf"choices\.{field} has shape .* rows \[{ROWS}\]"):
        cost(table(), U85_128, Choices(**{field: share}))


def test_parts() -> None:
    assert [float(between(jnp.float32(s), jnp.float32(7), 3.0)) for s in (0, 0.5, 1)] == [3, 5, 7]
    assert float(between(jnp.asarray(True), jnp.float32(7), jnp.nan)) == 7
    two_rows = rows({"plain_in": 1.0}, {})
    as_it_is = chosen(two_rows, Choices())
    np.testing.assert_array_equal(as_it_is.plain_in, [True, False])
    assert as_it_is.carried is two_rows.carried
    soft = chosen(two_rows._replace(reads_back=jnp.asarray([0.0, 1.0])), Choices(plain=jnp.asarray([0.25, 0.5])))
    np.testing.assert_array_equal(soft.plain_in, [1, 0.25])
    np.testing.assert_array_equal(soft.plain_out, [0.25, 0.5])
    two, weight = both_widths(two_rows, jnp.asarray([0.0, 0.75]))
    np.testing.assert_array_equal(two.bits, [[8, 16], [8, 16]])
    np.testing.assert_array_equal(weight, [[1, 0], [0.25, 0.75]])


@on_every_chip
@pytest.mark.parametrize(("field", "switch"), [("buffered", "weight_buffering"), ("fused", "grouping")])
def test_switched_off_it_costs_what_the_planner_says(field: str, switch: str, chip: Chip) -> None:
    off, on = (float(price(table(), chip, choices(**{field: share})).ms) for share in (0, 1))
    exact = plan(network(), chip, **{switch: False}).ms / plan(network(), chip).ms
    assert off / on == pytest.approx(exact, abs=0.03 if field == "buffered" else 0.002)
    assert exact > (1.3 if field == "buffered" else 1.004 if chip.chains_adds else 0.99)


NET = (
    Layer("input", "image", like=(48, 48, 3)),
    Layer("conv", "stem", ("image",), width=16, kernel=3, stride=2, act="relu6"),
    Layer("conv", "wider", ("stem",), width=64, act="relu6"),
    Layer("depthwise", "deep", ("wider",), kernel=3, stride=2, act="relu6"),
    Layer("conv", "narrow", ("deep",), width=32), Layer("conv", "again", ("narrow",), width=32, kernel=3),
    Layer("add", "sum", ("narrow", "again")), Layer("conv", "neck", ("sum",), width=96),
    Layer("mean", "mean", ("neck",)), Layer("dense", "head", ("mean",), width=42),
)  # fmt: skip


@on_every_chip
def test_int16_costs_what_the_compiler_says(chip: Chip) -> None:
    models = [make(tuple(dataclasses.replace(x, bits=bits) for x in NET), 1).model for bits in (8, 16)]
    layers = pad(read_network(models[0]).table, ROWS)
    narrow, wide = (float(price(layers, chip, choices(wide=share)).ms) for share in (0, 1))
    said = [referee(model, chip).ms for model in models]
    assert wide / narrow == pytest.approx(said[1] / said[0], rel=0.05)
    assert said[1] > 1.1 * said[0]


@on_every_chip
def test_a_plain_layout_costs_what_the_compiler_says(chip: Chip) -> None:
    """A layer between the network's own input and output, which are plain, against the same one inside a network."""
    inside = (
        Layer("input", "image", like=(64, 64, 24)), Layer("conv", "before", ("image",), width=40),
        Layer("conv", "layer", ("before",), width=40), Layer("conv", "after", ("layer",), width=8),
    )  # fmt: skip
    alone = (Layer("input", "image", like=(64, 64, 40)), Layer("conv", "layer", ("image",), width=40))

    def cycles(recipe: tuple[Layer, ...]) -> float:
        return {x.name: x.cycles for x in referee(make(recipe, 1).model, chip).layers}["layer"]

    layers = pad(read_network(make(inside, 1).model).table, ROWS)
    plain, brick = (float(price(layers, chip, choices(plain=share)).cycles[1]) for share in (1, 0))
    said = cycles(alone) / cycles(inside)
    assert plain / brick == pytest.approx(said, abs=0.03)
    assert said > (1.1 if chip is U85_512 else 1.0)
