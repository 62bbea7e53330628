"""What the compiler decides, as numbers between 0 and 1 that have a slope: buffers, fusion, layout, precision.

At 0 and at 1 the price is that of a network built so. Between them it goes in a straight line from corner to corner
of each figure that it is made of, so that a search can push a choice and round it in the end.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.npu.table import ADD, COMPARE, MUL, LayerTable


class Choices(NamedTuple):
    """Float [L] each, one entry a row of the table. None: as the compiler decides, and at no cost."""

    buffered: jax.Array | None = None  # 1: weights may be fetched ahead to SRAM; 0: they are read from flash
    fused: jax.Array | None = None  # 1: an element-wise operation rides where it can; 0: it is a pass of its own
    plain: jax.Array | None = None  # 1: the map is written and read as NHWC; 0: in bricks where it may be
    wide: jax.Array | None = None  # 1: int16 activations; 0: int8, whatever the table says


def between(share: jax.Array, at_one: jax.Array | float, at_zero: jax.Array | float) -> jax.Array:
    """The straight line between two corners, exact at both; a share that is bool picks one. Shapes broadcast."""
    if share.dtype == bool:
        return jnp.where(share, at_one, at_zero)
    return share * at_one + (1 - share) * at_zero


def chosen(table: LayerTable, choices: Choices) -> LayerTable:
    """The table with fusion and layout as chosen, fields [L] as before: real numbers where chosen, else layout is bool.

    Only what can ride is freed of its layer: activations always run in the one before them, as with the compiler's
    `Grouping` disabled. What must be plain (inputs, outputs, both sides of a reshape) stays so. ValueError: a choice
    that is not of the table's rows.
    """
    for name, share in choices._asdict().items():
        if share is not None and jnp.shape(share) != table.op.shape:
            shape, rows = list(jnp.shape(share)), list(table.op.shape)
            raise ValueError(f"choices.{name} has shape {shape}, but the table has rows {rows}: one number a row")
    row = jnp.arange(table.op.shape[0])
    if choices.fused is not None:
        rides = jnp.isin(table.op, jnp.asarray([ADD, MUL, COMPARE], jnp.float32)) & (table.rides_back > 0)
        alone = jnp.where(rides, 1 - choices.fused, 0.0)
        base = row - table.rides_back.astype(jnp.int32)
        table = table._replace(
            carries_add=table.carries_add.at[base].add(-alone), carried=table.carried - alone
        )
    if choices.plain is None:
        table = table._replace(plain_in=table.plain_in > 0, plain_out=table.plain_out > 0)
    else:
        read = jnp.where(
            table.reads_back > 0, choices.plain[row - table.reads_back.astype(jnp.int32)], 0.0
        )
        table = table._replace(
            plain_in=between(read, jnp.ones_like(read), table.plain_in),
            plain_out=between(choices.plain, jnp.ones_like(read), table.plain_out),
        )
    return table


def both_widths(table: LayerTable, wide: jax.Array) -> tuple[LayerTable, jax.Array]:
    """The table at 8 and at 16 bits, fields [L, 2], and the weight of each, [L, 2]."""
    two = [table._replace(bits=jnp.full_like(table.bits, bits)) for bits in (8.0, 16.0)]
    return jax.tree.map(lambda *x: jnp.stack(x, -1), *two), jnp.stack([1 - wide, wide], -1)
