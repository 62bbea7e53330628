"""A stated model of energy, never a measurement: E = P_static T + k (e_mac MACs + e_sram B + e_flash B).

No tool gives this device's energy. The constants are those of Horowitz, "Computing's energy problem", ISSCC
2014 (45 nm); one scale puts the frozen V1 at the 2.16 mJ a frame of the story (180 mW x 12 ms). P_static is
assumed: report 0, 60, 120 mW. The optimiser may lower E; E / T is a power, not an objective, for a
faster chip burns the same work in less time. `python -m research.bench.power` prints what it says of V1.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.npu.chip import Chip
from research.npu.cost import Cost

MAC_PJ = 0.3  # Horowitz: int8 multiply 0.2 and add 0.03, rounded up for the 32-bit accumulator
SRAM_PJ_PER_BYTE = 12.5  # Horowitz: 1 MB SRAM, 100 pJ for 64 bit
FLASH_PJ_PER_BYTE = 112.0  # off chip: 8 to 20 pJ a bit, the middle (Horowitz' DRAM)

V1_MJ = 2.16  # 180 mW x 12 ms, the story of V1
V2_MW, V2_MJ = 120.0, 0.96  # 120 mW x 8 ms, the story of V2
P_STATIC_MW = 60.0  # an assumption
P_STATIC_SWEEP_MW = (0.0, 60.0, 120.0)

# (V1_MJ - P_STATIC_MW * T) / dynamic energy of `reference.v1_graph` on Ethos-U55-128; a test recomputes it.
SCALE = 6.2161

_MJ_PER_UJ = 1e-3
_MJ_PER_PJ = 1e-9


def dynamic_mj(cost: Cost, macs: jax.Array | float) -> jax.Array:
    """Unscaled energy of arithmetic and memory traffic, mJ a frame."""
    traffic = SRAM_PJ_PER_BYTE * jnp.sum(cost.sram_bytes) + FLASH_PJ_PER_BYTE * jnp.sum(cost.flash_bytes)
    return (MAC_PJ * macs + traffic) * _MJ_PER_PJ


def energy_mj(
    cost: Cost, macs: jax.Array | float, chip: Chip, p_static_mw: float = P_STATIC_MW, scale: float = SCALE
) -> jax.Array:
    """Energy of one frame, mJ, scalar; jittable and differentiable.

    Args:
      cost: the price on `chip`.
      macs: multiply-accumulates executed: `jnp.sum(cost.macs)`, where a 2:4 layer counts half.
      chip: its `energy_scale` says how much less a switch costs than on V1's chip.
      p_static_mw: power drawn whatever the work, mW.
      scale: of dynamic energy; `scale_of` makes that of another static power.
    """
    return p_static_mw * cost.ms * _MJ_PER_UJ + scale * chip.energy_scale * dynamic_mj(cost, macs)


def scale_of(v1: Cost, p_static_mw: float) -> float:
    """The scale of dynamic energy that puts V1, priced on its own chip, at `V1_MJ`."""
    static = p_static_mw * float(v1.ms) * _MJ_PER_UJ
    return (V1_MJ - static) / float(dynamic_mj(v1, jnp.sum(v1.macs)))


class Power(NamedTuple):
    """What a frame takes: mJ first, then what follows from it."""

    mj: float
    active_mw: float  # while the frame is computed
    mw_at_30_fps: float  # in the mean, nothing drawn between frames; nan where a frame takes longer than that
    mw_at_60_fps: float
    scale_for_story: float  # `energy_scale` of a chip that would draw `V2_MW` while active; 0 or less: none would


def power(found: Cost, chip: Chip, p_static_mw: float = P_STATIC_MW, scale: float = SCALE) -> Power:
    """The modelled power of a network priced on `chip`."""
    mj, ms = float(energy_mj(found, jnp.sum(found.macs), chip, p_static_mw, scale)), float(found.ms)
    dynamic_mw = scale * float(dynamic_mj(found, jnp.sum(found.macs))) / (ms * _MJ_PER_UJ)
    at_30, at_60 = (mj * fps if ms * fps <= 1000 else float("nan") for fps in (30, 60))
    return Power(mj, mj / (ms * _MJ_PER_UJ), at_30, at_60, (V2_MW - p_static_mw) / dynamic_mw)


def claims(found: Power) -> Mapping[str, str]:
    """{claim of the story about V2: "holds" or "refuted"}, in this model."""
    told = {f"{V2_MW:g} mW while active": found.active_mw <= V2_MW, f"{V2_MJ:g} mJ a frame": found.mj <= V2_MJ}
    return {claim: "holds" if holds else "refuted" for claim, holds in told.items()}
