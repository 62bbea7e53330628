"""The energy model: its scale is derived from V1, and each term does what it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.npu import energy
from research.npu.chip import U55_128, U85_128
from research.npu.cost import Cost, cost
from research.npu.energy import claims, dynamic_mj, energy_mj, power
from research.npu.reference import v1_graph
from research.npu.rounding import THROUGH
from research.npu.table import layer_table


def v1_cost() -> Cost:
    return cost(layer_table(v1_graph()), U55_128)


def test_the_scale_is_the_one_that_puts_v1_at_the_story() -> None:
    found = v1_cost()
    static = energy.P_STATIC_MW * float(found.ms) * 1e-3
    derived = (energy.V1_MJ - static) / float(dynamic_mj(found, jnp.sum(found.macs)))
    assert pytest.approx(derived, rel=1e-3) == energy.SCALE
    assert float(energy_mj(found, jnp.sum(found.macs), U55_128)) == pytest.approx(2.16, rel=1e-3)


def test_dynamic_energy_by_hand() -> None:
    layers = {name: jnp.zeros((2,)) for name in Cost._fields} | {"ms": jnp.float32(0)}
    layers |= {"sram_bytes": jnp.asarray([1e6, 1e6]), "flash_bytes": jnp.asarray([0.0, 1e5])}
    assert float(dynamic_mj(Cost(**layers), 1e9)) == pytest.approx((0.3e9 + 12.5 * 2e6 + 112 * 1e5) * 1e-9)


def test_static_power_acts_through_time_only() -> None:
    found = v1_cost()
    none, some = (float(energy_mj(found, jnp.sum(found.macs), U55_128, p_static_mw=p)) for p in (0.0, 100.0))
    assert some - none == pytest.approx(100.0 * float(found.ms) * 1e-3, rel=1e-5)


def test_a_better_process_saves_dynamic_energy() -> None:
    found = v1_cost()
    better = dataclasses.replace(U55_128, energy_scale=0.5)
    full, half = (float(energy_mj(found, jnp.sum(found.macs), c, p_static_mw=0.0)) for c in (U55_128, better))
    assert half == pytest.approx(full / 2, rel=1e-5)


def test_energy_is_jitted_and_grows_with_width() -> None:
    table = layer_table(v1_graph())

    @jax.jit
    def frame_mj(oc: jax.Array) -> jax.Array:
        found = cost(table._replace(oc=oc), U85_128, rounding=THROUGH)
        return energy_mj(found, jnp.sum(found.macs), U85_128)

    slope = jax.grad(frame_mj)(table.oc)
    assert bool(jnp.isfinite(slope).all())
    assert float(slope.sum()) > 0


def test_power_follows_from_the_energy_of_a_frame() -> None:
    found = v1_cost()
    own = power(found, U55_128)
    assert own.mj == pytest.approx(2.16, rel=1e-3)
    assert own.active_mw == pytest.approx(1e3 * own.mj / float(found.ms))
    assert (own.mw_at_30_fps, own.mw_at_60_fps) == pytest.approx((30 * own.mj, 60 * own.mj))
    assert np.isnan(power(found._replace(ms=jnp.float32(20.0)), U55_128).mw_at_60_fps)
    frugal = dataclasses.replace(U55_128, energy_scale=own.scale_for_story)
    assert power(found, frugal).active_mw == pytest.approx(energy.V2_MW, rel=1e-4)


@pytest.mark.parametrize("p_static_mw", energy.P_STATIC_SWEEP_MW)
def test_every_static_power_has_its_own_scale(p_static_mw: float) -> None:
    found = v1_cost()
    own = power(found, U55_128, p_static_mw, energy.scale_of(found, p_static_mw))
    assert own.mj == pytest.approx(energy.V1_MJ, rel=1e-5)


def test_a_claim_is_refuted_where_the_model_says_so() -> None:
    low = energy.Power(0.5, 100.0, 15.0, 30.0, 1.0)
    assert set(claims(low).values()) == {"holds"}
    assert set(claims(low._replace(active_mw=121.0, mj=1.0)).values()) == {"refuted"}
