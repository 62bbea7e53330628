"""Chips by name or from a user's own Python file, and the price of a network on either family."""

import runpy
from collections.abc import Mapping
from pathlib import Path

import jax

from research.npu import chip as ethos
from research.npu.chip import Chip
from research.npu.cost import Cost, cost
from research.npu.rounding import EXACT, Rounding
from research.npu.systolic import SYSTOLIC_OS, SYSTOLIC_WS, Systolic, systolic_cost
from research.npu.table import LayerTable, pad

AnyChip = Chip | Systolic
_ROWS = 64


def known_chips() -> Mapping[str, AnyChip]:
    """{short name: chip}, as in "u85-128" for Ethos-U85-128: all of `chip`, and the systolic arrays."""
    own = [value for value in vars(ethos).values() if isinstance(value, Chip)]
    found: list[AnyChip] = [
        *sorted(own, key=lambda c: (c.family, c.macs_per_cycle)),
        SYSTOLIC_WS,
        SYSTOLIC_OS,
    ]
    return {c.name.lower().removeprefix("ethos-"): c for c in found}


def find_chip(name: str) -> AnyChip:
    """The chip of a short name, or `CHIP` of a Python file ("my_npu.py"). The file is run: open only your own.

    Such a file makes a `Systolic(...)`, or `dataclasses.replace(U85_128, ...)` with the numbers that differ.

    Raises ValueError, one line, for an unknown name, a file that fails, or one without a chip called CHIP.
    """
    if not name.endswith(".py"):
        chips = known_chips()
        if name.lower() not in chips:
            there = ", ".join(chips)
            raise ValueError(f"no chip {name!r}: there are {there}, or a Python file that makes a CHIP")
        return chips[name.lower()]
    if not Path(name).is_file():
        raise ValueError(f"no file {name!r}: write one that makes a CHIP")
    try:
        made = runpy.run_path(name).get("CHIP")
    except Exception as error:
        raise ValueError(f"{name} does not run: {type(error).__name__}: {error}") from error
    if not isinstance(made, Chip | Systolic):
        raise ValueError(f"{name} must make CHIP, a research.npu Chip or Systolic, not {type(made).__name__}")
    return made


def cost_on(table: LayerTable, chip: AnyChip, *, rounding: Rounding = EXACT) -> Cost:
    """The price of a table [L] on a chip of either family: `cost` or `systolic_cost`.

    Tables are padded to a multiple of 64 rows for it, so that networks share a compilation.
    """
    length = table.op.shape[0]
    padded = pad(table, -(-length // _ROWS) * _ROWS)
    if isinstance(chip, Systolic):
        found = systolic_cost(padded, chip, rounding=rounding)
    else:
        found = cost(padded, chip, rounding=rounding)
    return jax.tree.map(lambda field: field[:length] if field.ndim else field, found)
