"""A stated model of energy, never a measurement: E = P_static T + k (e_mac MACs + e_sram B + e_flash B).

No tool gives this device's energy. The constants are those of Horowitz, "Computing's energy problem", ISSCC
2014 (45 nm); one scale puts the frozen V1 at the 2.16 mJ a frame of the story (180 mW x 12 ms). P_static is
assumed: report 0, 60, 120 mW. The optimiser may lower E; E / T is a power, not an objective, for a
faster chip burns the same work in less time.
"""

import jax
import jax.numpy as jnp

from research.npu.chip import Chip
from research.npu.cost import Cost

MAC_PJ = 0.3  # int8 multiply and add: 0.2 + 0.03, rounded up for the 32-bit accumulator
SRAM_PJ_PER_BYTE = 12.5  # 1 MB SRAM, 100 pJ for 64 bit
FLASH_PJ_PER_BYTE = 112.0  # off chip: 8 to 20 pJ a bit, the middle

V1_MJ = 2.16  # 180 mW x 12 ms, the story of V1
P_STATIC_MW = 60.0  # an assumption

# (V1_MJ - P_STATIC_MW * T) / dynamic energy of `reference.v1_graph` on Ethos-U55-128; a test recomputes it.
SCALE = 6.2161

_MJ_PER_UJ = 1e-3
_MJ_PER_PJ = 1e-9


def dynamic_mj(cost: Cost, macs: jax.Array | float) -> jax.Array:
    """Unscaled energy of arithmetic and memory traffic, mJ a frame."""
    traffic = SRAM_PJ_PER_BYTE * jnp.sum(cost.sram_bytes) + FLASH_PJ_PER_BYTE * jnp.sum(cost.flash_bytes)
    return (MAC_PJ * macs + traffic) * _MJ_PER_PJ


def energy_mj(cost: Cost, macs: jax.Array | float, chip: Chip, p_static_mw: float = P_STATIC_MW) -> jax.Array:
    """Energy of one frame, mJ, scalar; jittable and differentiable.

    Args:
      cost: the price on `chip`.
      macs: multiply-accumulates executed: `jnp.sum(cost.macs)`, where a 2:4 layer counts half.
      chip: its `energy_scale` says how much less a switch costs than on V1's chip.
      p_static_mw: power drawn whatever the work, mW.
    """
    static = p_static_mw * cost.ms * _MJ_PER_UJ
    return static + SCALE * chip.energy_scale * dynamic_mj(cost, macs)
