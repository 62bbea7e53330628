"""How much SRAM activations need at once, from the table alone: jitted, with a gradient where it is asked to be soft.

Every row's tensor lives from `born` to `dies` (row numbers, both included); `dies < born` is a tensor that shares
another one's memory. `liveness` reads a graph's own rules; this is the same sum over whatever lifetimes it is given.
"""

import jax
import jax.numpy as jnp

from research.npu.lowering import stored
from research.npu.rounding import EXACT, THROUGH
from research.npu.table import FREE, LayerTable


def peak_kb(
    table: LayerTable, born: jax.Array, dies: jax.Array, *, softness_kb: float | None = None
) -> jax.Array:
    """Largest sum of live tensors over the rows, KiB, scalar.

    Args:
      table: fields [L].
      born, dies: [L], first and last row during which the tensor that a row makes is held.
      softness_kb: None: the maximum, its gradient that of one row. Else a soft maximum that lies at most
        softness_kb * log(L) above it, with channels rounded straight through.

    Raises:
      ValueError: a softness that is not positive.
    """
    if softness_kb is not None and softness_kb <= 0:
        raise ValueError(f"softness_kb must be positive, got {softness_kb}")
    rounding = EXACT if softness_kb is None else THROUGH
    size = stored(table, rounding) * table.repeats * table.bits / 8 / 1024
    size = jnp.where(table.op == FREE, 0.0, size)
    row = jnp.arange(table.op.shape[0])[:, None]
    live = jnp.sum(jnp.where((born[None] <= row) & (row <= dies[None]), size[None], 0.0), axis=1)
    if softness_kb is None:
        return jnp.max(live)
    return softness_kb * jax.nn.logsumexp(live / softness_kb)
