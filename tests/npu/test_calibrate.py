"""Gains that made the measurements are found again; what was not measured is not trusted in silence."""

import warnings
from collections.abc import Mapping
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.npu.calibrate import (
    GAINS,
    ExtrapolationWarning,
    calibrate,
    calibrated_ms,
    outside,
    predict_ms,
)
from research.npu.chip import U55_128, U85_128
from research.npu.measured import Measured
from research.npu.named import cost_on
from research.npu.network import Network, read_network
from research.npu.referee import referee as judge
from research.npu.rounding import THROUGH
from research.npu.systolic import SYSTOLIC_WS
from tests.npu.networks import hand_network

TRUE = (1.4, 0.7, 1.2, 1.0, 1.0, 1.6, 20.0)


@cache
def networks() -> Mapping[str, Network]:
    return {f"{i}{s}": read_network(hand_network(i, bool(s)).model) for i in range(3) for s in range(2)}


def invented(gains: tuple[float, ...], noise: float = 0.0, *, layers: bool) -> tuple[Measured, ...]:
    """What a chip of these gains would take, layer by layer or whole; noise is relative."""
    rng, found = np.random.default_rng(0), []
    for name, network in networks().items():
        parts = np.asarray(cost_on(network.table, U85_128).cycles)
        for row, layer in enumerate(network.names if layers else ("",)):
            if layers and parts[row] == 0:
                continue
            times = layer_times(name, gains)
            ms = float(times[row] if layers else times.sum())
            found.append(Measured(name, layer, ms * float(np.exp(noise * rng.normal()))))
    return tuple(found)


def layer_times(name: str, gains: tuple[float, ...]) -> np.ndarray:
    """The formula written again, in plain numpy."""
    table = networks()[name].table
    cost = {k: np.asarray(v) for k, v in cost_on(table, U85_128)._asdict().items()}
    by_op = {0: gains[0], 1: gains[1], 2: gains[2]}
    own = np.array([by_op.get(int(op), gains[3]) for op in np.asarray(table.op)])
    longest = np.maximum.reduce(
        [cost["npu_cycles"] * own, cost["sram_cycles"] * gains[4], cost["flash_cycles"] * gains[5]]
    )
    return longest / 200e3 + (cost["cycles"] > 0) * gains[6] / 1000


def test_gains_are_found_again_from_layers() -> None:
    found = calibrate(U85_128, invented(TRUE, layers=True), networks())
    for name in ("conv", "depthwise", "flash", "start_us"):
        assert found.gains[name] == pytest.approx(TRUE[GAINS.index(name)], rel=0.05)
    assert found.held_out_percent < 1
    assert found.before_percent > 20


def test_whole_networks_are_enough_to_predict() -> None:
    found = calibrate(U85_128, invented(TRUE, layers=False), networks())
    assert found.held_out_percent < 5 < 10 < found.before_percent
    low, high = found.interval_percent
    assert low <= high


def test_held_out_residuals_show_the_noise() -> None:
    """5 % of noise cannot be predicted: residuals held out spread by it, and 90 % are within 1.6 deviations."""
    found = calibrate(U85_128, invented(TRUE, 0.05, layers=True), networks())
    assert 3 < found.held_out_percent < 6
    low, high = found.interval_percent
    assert -12 < low < -5 < 5 < high < 12


def test_one_network_is_held_out_layer_by_layer() -> None:
    only = tuple(one for one in invented(TRUE, layers=True) if one.network == "00")
    found = calibrate(U85_128, only, {"00": networks()["00"]})
    assert found.measurements == len(only)
    assert found.held_out_percent < found.before_percent


def test_a_real_stranger_is_learned() -> None:
    """The compiler's times on Ethos-U55 as measurements, the systolic array as the description."""
    measured = []
    for i in range(3):
        verdict = judge(hand_network(i, False).model, U55_128)
        known = set(networks()[f"{i}0"].names)
        measured += [Measured(f"{i}0", v.name, v.cycles / 200e3) for v in verdict.layers if v.name in known]
    measured = [one for one in measured if "add" not in one.layer]
    found = calibrate(SYSTOLIC_WS, measured, {f"{i}0": networks()[f"{i}0"] for i in range(3)})
    assert found.held_out_percent < found.before_percent / 2


def test_extrapolation_warns_and_the_measured_range_does_not() -> None:
    some = {name: network for name, network in networks().items() if name.startswith("0")}
    measured = tuple(one for one in invented(TRUE, layers=False) if one.network in some)
    layers = tuple(one for one in invented(TRUE, layers=True) if one.network in some)
    found = calibrate(U85_128, (*measured, *layers), some)
    inside, strange = some["00"].table, networks()["20"].table
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert predict_ms(found, inside) == pytest.approx(float(np.sum(layer_times("00", TRUE))), rel=0.02)
    assert outside(found, inside) == ()
    with pytest.warns(ExtrapolationWarning, match="extrapolates: .* measured were"):
        predict_ms(found, strange)
    dense = tuple(one for one in layers if "head" not in one.layer)
    without = calibrate(U85_128, dense, some)
    assert "no dense layer was measured" in outside(without, inside)


def test_a_calibrated_price_has_gradients() -> None:
    table, gains = networks()["00"].table, jnp.asarray(TRUE)

    def total(widths: jax.Array, gains: jax.Array) -> jax.Array:
        changed = table._replace(oc=widths)
        return calibrated_ms(changed, SYSTOLIC_WS, gains, rounding=THROUGH)

    by_width, by_gain = jax.jit(jax.grad(total, argnums=(0, 1)))(table.oc, gains)
    assert bool(jnp.isfinite(by_width).all())
    assert float(by_width.max()) > 0
    assert bool((by_gain[:2] > 0).all())


def test_what_cannot_be_fitted_is_told() -> None:
    measured = invented(TRUE, layers=True)
    with pytest.raises(ValueError, match="3 measurements are too few: at least 4"):
        calibrate(U85_128, measured[:3], networks())
    with pytest.raises(ValueError, match="00 has no layer 'nowhere'"):
        calibrate(U85_128, (*measured, Measured("00", "nowhere", 1.0)), networks())
    with pytest.raises(ValueError, match="'b0/add' costs nothing in the model"):
        calibrate(U85_128, (*measured, Measured("00", "b0/add", 1.0)), networks())
