"""Whether the slopes of the price can be trusted: `python -m research.bench.gradients [--check] [--write]`.

Gradients are finite on random networks; those of the smooth price are its central differences in float64; choices at
their corners price the networks built so; and a search over choices ends where it may be rounded. Whether the slopes
are right about the compiler too, edit by edit, is in `research.bench.fidelity`. `--check` exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from research.bench import population
from research.bench.recipes import make
from research.npu import (
    EXACT,
    SMOOTH,
    THROUGH,
    U55_128,
    U85_128,
    Chip,
    Choices,
    LayerTable,
    Network,
    Rounding,
    cost,
    pad,
    read_network,
)
from research.npu.riding import riders
from research.npu.table import ADD, COMPARE, CONV, DENSE, FREE, MUL
from research.train.record import write_json
from research.train.runtime import prepare_runtime

RESULT = Path("configs/results/bench/gradients.json")
CHIPS = (U85_128, U55_128)
# {figure: the largest that passes}
BARS = {"not_finite": 0.0, "difference": 1e-6, "edges_share": 0.05, "corner": 1e-6, "snapping_percent": 1.0}
SLOPED = ("ic", "oc", "sparse", "dense_bytes_per_weight", "sparse_bytes_per_weight")  # and every choice
INPUTS, NETWORKS, BATCH, SMALL, ROWS = 100_000, 16, 2000, 6, 64
STEP, EDGE, INSENSITIVE = 1e-6, 1e-4, 1e-3
SEARCH_STEPS, RATE = 60, 0.05

Point = tuple[dict[str, jax.Array], Choices]  # columns of a table by name, and choices


@partial(jax.jit, static_argnames=("chip", "rounding"))
def _ms(table: LayerTable, point: Point, chip: Chip, rounding: Rounding) -> jax.Array:
    return cost(table._replace(**point[0]), chip, point[1], rounding=rounding).ms


def _columns(table: LayerTable) -> dict[str, jax.Array]:
    return {name: getattr(table, name) for name in SLOPED}


def random_tables(rng: np.random.Generator, count: int) -> tuple[LayerTable, Choices]:
    """`count` networks of any operations in `SMALL` rows, widths not whole, choices between corners: [count, rows]."""
    shape = count, SMALL

    def pick(*options: float) -> np.ndarray:
        return rng.choice(np.asarray(options, np.float32), shape)

    op, stride = rng.integers(0, FREE + 1, shape).astype(np.float32), pick(1, 1, 2)
    found = {name: np.ones(shape, np.float32) for name in LayerTable._fields} | {"op": op, "stride": stride}
    found |= {name: np.where(op == DENSE, 1, rng.integers(1, 65, shape)) for name in ("oh", "ow")}
    found |= {name: np.where(op == DENSE, 1, pick(1, 3, 3, 5, 9)) for name in ("kh", "kw")}
    found |= {name: np.exp(rng.uniform(0, 6.2, shape)) for name in ("ic", "oc")}
    found |= {"ih": found["oh"] * stride, "iw": found["ow"] * stride, "bits": pick(8, 16)}
    found |= {"sparse": rng.random(shape), "dense_bytes_per_weight": rng.uniform(0.2, 1.2, shape)}
    found |= {"carries_add": pick(0, 1, 2), "carries_lookup": pick(0, 1), "plain_in": pick(0, 1)}
    found |= {"rides_back": np.where(op == ADD, pick(0, 1), 0), "constant": pick(0, 0, 64)}
    found["carried"] = found["rides_back"]
    table = LayerTable(**{name: jnp.asarray(column, jnp.float32) for name, column in found.items()})
    return table, Choices(*(jnp.asarray(rng.random(shape), jnp.float32) for _ in Choices._fields))


@partial(jax.jit, static_argnames=("chip", "rounding"))
def _finite(tables: LayerTable, choices: Choices, chip: Chip, rounding: Rounding) -> jax.Array:
    """Bool [B]: the price and all its slopes are finite."""
    slopes = jax.vmap(jax.value_and_grad(partial(_ms, chip=chip, rounding=rounding), argnums=1))
    found = slopes(tables, (_columns(tables), choices))
    return jnp.stack([jnp.isfinite(x.reshape(len(x), -1)).all(axis=1) for x in jax.tree.leaves(found)]).all(axis=0)


def not_finite(chip: Chip, rounding: Rounding, seed: int, count: int) -> int:
    """How many of `count` random networks, rounded up to whole batches, have a price or a slope that is not finite."""
    rng = np.random.default_rng(seed)
    batches = (random_tables(rng, BATCH) for _ in range(-(-count // BATCH)))
    return sum(int((~_finite(*batch, chip, rounding)).sum()) for batch in batches)


def differences(networks: Sequence[Network], chip: Chip, seed: int) -> tuple[float, float]:
    """(largest gap between a slope and its central difference, share of slopes on an edge), smooth price, float64.

    A direction is random in all rows of one column or one choice. The gap is relative to the slope, or to a thousandth
    of the price where it is less. On an edge (another block is chosen, another memory binds) the slopes to both sides
    differ and there is nothing to compare.
    """
    rng, gaps, edges = np.random.default_rng(seed), list[float](), list[bool]()
    with jax.enable_x64(True):
        value = partial(_ms, chip=chip, rounding=SMOOTH)
        both = jax.jit(jax.value_and_grad(value, argnums=1))
        for network in networks:
            table = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), pad(network.table, ROWS))
            columns = {name: c * rng.uniform(0.8, 1.2, ROWS) for name, c in _columns(table).items()}
            columns["sparse"] = jnp.asarray(rng.uniform(0.1, 0.9, ROWS))
            start: Point = columns, Choices(*(jnp.asarray(rng.uniform(0.1, 0.9, ROWS)) for _ in Choices._fields))
            middle, slope = both(table, start)
            leaves, tree = jax.tree.flatten(start)
            for at, own in enumerate(jax.tree.leaves(slope)):
                along = leaves[at] * rng.normal(size=ROWS)
                ends = [
                    value(table, jax.tree.unflatten(tree, [*leaves[:at], leaves[at] + h * along, *leaves[at + 1 :]]))
                    for h in (-STEP, STEP)
                ]
                left, right = float(middle - ends[0]) / STEP, float(ends[1] - middle) / STEP
                said = float(jnp.sum(own * along))
                size = max(abs(said), INSENSITIVE * float(middle))
                edges.append(abs(right - left) > EDGE * size)
                gaps.append(0.0 if edges[-1] else abs((left + right) / 2 - said) / size)
    return max(gaps), float(np.mean(edges))


def built(network: Network, choices: Choices) -> LayerTable:
    """The table [rows of the choices] of a network built as chosen, from its graph; `buffered` has no column there."""
    names = {name: row for row, name in enumerate(network.names)}
    said = {name: np.asarray(share) for name, share in choices._asdict().items()}
    padded = pad(network.table, len(said["wide"]))
    columns = {name: np.array(column) for name, column in padded._asdict().items()}
    columns["bits"] = np.where(said["wide"] > 0, np.float32(16), np.float32(8))
    for row, node in enumerate(network.graph.nodes):
        maker = names.get(node.inputs[0]) if node.inputs else None
        read = 0.0 if maker is None else said["plain"][maker]
        columns["plain_in"][row] = max(columns["plain_in"][row], read)
        columns["plain_out"][row] = max(columns["plain_out"][row], said["plain"][row])
    for rider, base in riders(network.graph).items():
        if columns["op"][names[rider]] in (ADD, MUL, COMPARE) and not said["fused"][names[rider]]:
            columns["carried"][names[rider]] = 0
            columns["carries_add"][names[base]] -= 1
    return LayerTable(**{name: jnp.asarray(column) for name, column in columns.items()})


def corner_gap(networks: Sequence[Network], chip: Chip, seed: int) -> float:
    """Largest relative gap of a row's cycles between random choices of 0 and 1 and the network built so."""
    rng, worst = np.random.default_rng(seed), 0.0
    for network in networks:
        choices = Choices(*(jnp.asarray(rng.integers(0, 2, ROWS), jnp.float32) for _ in Choices._fields))
        relaxed = cost(pad(network.table, ROWS), chip, choices).cycles
        hard = cost(built(network, choices), chip, Choices(buffered=choices.buffered)).cycles
        worst = max(worst, float(jnp.max(jnp.abs(relaxed - hard) / jnp.maximum(hard, 1.0))))
    return worst


@partial(jax.jit, static_argnames="chip")
def _search(table: LayerTable, start: Point, rewards: jax.Array, chip: Chip) -> tuple[Point, jax.Array]:
    """Signs of slopes, down to a minimum of ms less what the wide rows are worth; and the ms there."""

    def score(point: Point) -> jax.Array:
        wide = jnp.asarray(point[1].wide)
        return _ms(table, point, chip, THROUGH) - jnp.sum(rewards * wide)

    def step(_: int, point: Point) -> Point:
        slope = jax.grad(score)(point)
        return jax.tree.map(lambda x, s: jnp.clip(x - RATE * jnp.sign(s), 0.0, 1.0), point, slope)

    found = jax.lax.fori_loop(0, SEARCH_STEPS, step, start)
    return found, _ms(table, found, chip, EXACT)


def snapping_gap(networks: Sequence[Network], chip: Chip, seed: int) -> float:
    """Largest gap, percent, between the price where a search over 2:4 and all choices ends and that of the network
    that it is rounded to. Half of the rows are worth int16 to the search."""
    rng, worst = np.random.default_rng(seed), 0.0
    for network in networks:
        table = pad(network.table, ROWS)
        two_of_four = jnp.where((table.op == CONV) | (table.op == DENSE), 1.0, 0.0)
        table = table._replace(sparse=two_of_four)
        start: Point = (
            {"sparse": two_of_four / 2},
            Choices(*(jnp.asarray(rng.uniform(0.3, 0.7, ROWS), jnp.float32) for _ in Choices._fields)),
        )
        worth = jax.grad(partial(_ms, chip=chip, rounding=THROUGH), argnums=1)(table, start)[1].wide
        (columns, choices), relaxed = _search(table, start, worth * rng.choice([0.5, 1.5], ROWS), chip)
        choices, columns = jax.tree.map(jnp.round, (choices, columns))
        hard = built(network, choices)._replace(**columns)
        snapped = float(cost(hard, chip, Choices(buffered=choices.buffered)).ms)
        worst = max(worst, 100 * abs(float(relaxed) / snapped - 1))
    return worst


def sample(seed: int, count: int) -> list[Network]:
    """Random networks of at most `ROWS` rows."""
    made = (read_network(make(r, own, spread).model) for r, own, spread in population.networks(seed, 2 * count))
    return [network for network in made if len(network.names) <= ROWS][:count]


def measure(seed: int, count: int, inputs: int) -> dict[str, dict[str, float]]:
    """`{chip: {figure of BARS: value}}`."""
    networks, found = sample(seed, count), {}
    for chip in CHIPS:
        missing = sum(not_finite(chip, rounding, seed, inputs // 4) for rounding in (THROUGH, SMOOTH))
        gap, edges = differences(networks, chip, seed)
        corner, snapping = corner_gap(networks, chip, seed), snapping_gap(networks, chip, seed)
        figures = (float(missing), gap, edges, corner, snapping)
        found[chip.name] = dict(zip(BARS, figures, strict=True))
    return found


def missed(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Every bar that is missed, one line each."""
    rows = ((chip, name, value) for chip, own in found.items() for name, value in own.items())
    return [f"{c}: {n} {v:.3g}, at most {BARS[n]:g}" for c, n, v in rows if not v <= BARS[n]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table and a line of JSON; 1 where `--check` finds a bar missed."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.gradients", description=__doc__)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="random networks over all chips and modes")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT}")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    asked = parser.parse_args(arguments)
    prepare_runtime()
    figures = measure(asked.seed, asked.networks, asked.inputs)
    shown = Table("figure", "at most", *figures, title="Slopes of the simulated price")
    for name, bar in BARS.items():
        shown.add_row(name, f"{bar:g}", *(f"{own[name]:.3g}" for own in figures.values()))
    Console().print(shown)
    failures = missed(figures)
    found: dict[str, Any] = {"bench": "gradients", "seed": asked.seed, "networks": asked.networks}
    found |= {"inputs": asked.inputs, "chips": figures, "missed": failures}
    print(json.dumps(found))
    if asked.write:
        write_json(RESULT, found)
    return int(asked.check and bool(failures))


if __name__ == "__main__":
    sys.exit(main())
