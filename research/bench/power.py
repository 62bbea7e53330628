"""What the energy model says of the story: `python -m research.bench.power [--write]`. Modelled, never measured.

V1 on its own chip, on the new one, and there with 2:4 weights; for every assumed static power the one scale of
dynamic energy is set again, so that V1 takes 2.16 mJ a frame on its own chip.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from research.npu import U55_128, U85_128, Chip, LayerTable, cost, layer_table, v1_graph
from research.npu.energy import P_STATIC_SWEEP_MW, V2_MW, claims, power, scale_of
from research.train.record import write_json

RESULT = Path("configs/results/bench/power.json")


def report() -> list[dict[str, Any]]:
    """V1 on its own chip, on the new one, and there with 2:4 weights, under every static power of the sweep."""
    dense = layer_table(v1_graph())
    sparse = dense._replace(sparse=jnp.where(dense.weights > 0, 1.0, dense.sparse))
    cases: tuple[tuple[str, LayerTable, Chip], ...] = (
        ("V1", dense, U55_128), ("V1", dense, U85_128), ("V1, 2:4", sparse, U85_128),
    )  # fmt: skip
    priced = [cost(table, chip) for _, table, chip in cases]
    rows = []
    for p_static_mw in P_STATIC_SWEEP_MW:
        scale = scale_of(priced[0], p_static_mw)
        for (name, _, chip), found in zip(cases, priced, strict=True):
            own = power(found, chip, p_static_mw, scale)
            row = {"network": name, "chip": chip.name, "p_static_mw": p_static_mw, "scale": scale}
            rows.append(row | {"ms": float(found.ms), **own._asdict(), "claims": dict(claims(own))})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints `report` as a table, the story's claims in words, and one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.power", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT}")
    asked = parser.parse_args(arguments)
    columns = ("network", "chip", "P_static mW", "scale", "ms", "mJ a frame", "active mW", "mW at 30 fps",
               "mW at 60 fps", f"scale for {V2_MW:g} mW")  # fmt: skip
    table = Table(*columns, title="Energy, modelled, never measured: one scale set on V1 = 2.16 mJ a frame")
    rows = report()
    for row in rows:
        name, chip, *numbers = list(row.values())[:-1]
        table.add_row(name, chip, *(f"{number:.3g}" for number in numbers))
    console = Console(width=150)
    console.print(table)
    for row in rows:
        if row["chip"] != U55_128.name:
            said = ", ".join(f"{claim}: {verdict}" for claim, verdict in row["claims"].items())
            need = row["scale_for_story"]
            chip = f"a chip of {need:.2f} times V1's dynamic energy" if need > 0 else "no chip, however frugal"
            console.print(
                f"{row['network']} on {row['chip']}, P_static {row['p_static_mw']:g} mW: {said}; "
                f"{chip} would draw {V2_MW:g} mW"
            )
    print(json.dumps({"bench": "power", "rows": rows}))
    if asked.write:
        write_json(RESULT, {"bench": "power", "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
