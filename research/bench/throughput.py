"""How fast networks are priced, and how faithful the very mode that was timed: `python -m research.bench.throughput`.

Random networks of at least 20 layers are labelled by Arm's compiler on the spot, in process; every other figure is of
the same run. `arbitrary` prices any tables, SRAM peak and DMA overlap included; `gradients` are those of milliseconds
and of the soft SRAM peak in every field of the table; `tables` looks networks up in a search space made of one
network's rows. `--check` exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from research.bench import population
from research.bench.agreement import kendall_tau, mape_percent
from research.bench.recipes import make
from research.npu import U85_128, LayerTable, cost, pad, read_network, referee
from research.npu.peak import peak_kb
from research.npu.rounding import THROUGH
from research.npu.space import Slot, cost_of, tables
from research.train.record import write_json
from research.train.runtime import prepare_runtime

CHIP = U85_128
RESULT = Path("configs/results/bench/throughput.json")
LEAST_LAYERS, MOST_ROWS, NETWORKS = 20, 32, 60
BARS = {"arbitrary": 100_000.0, "tables": 1_000_000.0, "gradients": 20_000.0}  # a second
MAPE_BAR, TAU_BAR, SAME_BAR = 6.0, 0.93, 1e-4
SOFTNESS_KB, MS_PER_KB = 1.0, 1e-3
BATCH, TABLE_BATCH, REPEATS, THREADS = 256, 16_384, 9, 2  # larger batches leave the cache
JOBS = 16  # batches in flight at one reading of the clock


def _price(table: LayerTable) -> tuple[jax.Array, jax.Array]:
    found, row = cost(table, CHIP, fast=True), jnp.arange(table.op.shape[0])
    return found.ms - jnp.sum(found.host_cycles) / CHIP.cycles_per_ms, peak_kb(table, row, row + 1)


def _slope(table: LayerTable) -> LayerTable:
    row = jnp.arange(table.op.shape[0])

    def penalised_ms(t: LayerTable) -> jax.Array:
        peak = peak_kb(t, row, row + 1, softness_kb=SOFTNESS_KB)
        return cost(t, CHIP, fast=True, rounding=THROUGH).ms + MS_PER_KB * peak

    return jax.grad(penalised_ms)(table)


def rate(run: Callable[[], Any], count: int) -> tuple[float, float]:
    """(networks a second of wall clock, of CPU time over the threads), medians; `run` prices `count` networks."""
    jax.block_until_ready(run())
    walls, cpus = [], []
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(REPEATS):
            wall, cpu = time.perf_counter(), time.process_time()
            for job in [pool.submit(lambda: jax.block_until_ready(run())) for _ in range(JOBS)]:
                job.result()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    done = JOBS * count
    return done / median(walls), THREADS * done / max(median(cpus), 1e-9)


def sample(seed: int, count: int) -> tuple[LayerTable, np.ndarray, float]:
    """Tables [rows, count] of random networks, the referee's ms [count], networks a second of the referee."""
    found, ms, spent = list[LayerTable](), list[float](), 0.0
    for recipe, own, spread in population.networks(seed, 6 * count):
        if len(found) == count or not LEAST_LAYERS <= len(recipe) - 1 <= MOST_ROWS:
            continue
        model = make(recipe, own, spread).model
        network = read_network(model)
        if not LEAST_LAYERS <= len(network.names) <= MOST_ROWS:
            continue
        start = time.perf_counter()
        ms.append(referee(model, CHIP).ms)
        spent += time.perf_counter() - start
        found.append(pad(network.table, MOST_ROWS))
    if len(found) < count:
        raise ValueError(
            f"seed {seed} makes {len(found)} networks of {LEAST_LAYERS} layers or more, not {count}"
        )
    return jax.tree.map(lambda *x: jnp.stack(x, 1), *found), np.array(ms), len(ms) / spent


def space_of(stacked: LayerTable) -> list[Slot]:
    """A slot a row of the first network, four blocks each: its row in four widths of kernel bytes and 2:4 or not."""
    slots = []
    for index in range(LEAST_LAYERS):
        row = jax.tree.map(lambda x, index=index: x[index : index + 1, 0], stacked)
        variants = [
            row._replace(sparse=jnp.full((1,), sparse), dense_bytes_per_weight=jnp.full((1,), size))
            for sparse in (0.0, 1.0)
            for size in (0.8, 1.0)
        ]
        held = tuple(float(peak_kb(v, jnp.zeros(1), jnp.zeros(1))) for v in variants)
        slots.append(Slot(tuple(variants), held))
    return slots


def measure(seed: int, count: int) -> dict[str, Any]:
    """Speeds, bars and fidelity of every mode."""
    stacked, true, referee_rate = sample(seed, count)
    few: Any = jax.jit(jax.vmap(_price, in_axes=1))
    again = jnp.arange(BATCH) % count
    batch = jax.tree.map(lambda x: x[:, again], stacked)
    slope: Any = jax.jit(jax.vmap(_slope, in_axes=1, out_axes=1))
    found: dict[str, Any] = {"referee_per_s": referee_rate, "seed": seed, "networks": count}
    found["arbitrary"] = _row(*rate(lambda: few(batch), BATCH), "arbitrary", referee_rate)
    found["gradients"] = _row(*rate(lambda: slope(batch), BATCH), "gradients", referee_rate)
    predicted = np.asarray(few(batch)[0])[:count].astype(np.float64)
    found["mape_percent"], found["tau"] = mape_percent(predicted, true), kendall_tau(predicted, true)
    space, start = space_of(stacked), time.perf_counter()
    made = jax.block_until_ready(tables(space, CHIP))
    found["tables_build_s"] = time.perf_counter() - start
    choices = jnp.asarray(np.random.default_rng(seed).integers(0, 4, (len(space), TABLE_BATCH)), jnp.int32)
    found["tables"] = _row(*rate(lambda: cost_of(made, choices), TABLE_BATCH), "tables", referee_rate)
    found["tables_gap"] = _gap(space, np.asarray(choices)[:, :32], np.asarray(cost_of(made, choices)[0])[:32])
    found["compiles"] = {"arbitrary": few._cache_size(), "gradients": slope._cache_size()}
    return found


def _row(wall: float, cpu: float, mode: str, referee_rate: float) -> dict[str, float]:
    return {"per_s": wall, "per_s_by_cpu_time": cpu, "bar": BARS[mode], "times_referee": wall / referee_rate}


def _gap(space: Sequence[Slot], choices: np.ndarray, looked_up: np.ndarray) -> float:
    """Largest relative difference between the tables and `cost` of the same networks."""
    whole = [
        jax.tree.map(lambda *x: jnp.concatenate(x), *(s.blocks[c] for s, c in zip(space, one, strict=True)))
        for one in choices.T
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x, 1), *whole)
    priced = np.asarray(jax.vmap(lambda table: cost(table, CHIP).ms, in_axes=1)(stacked))
    return float(np.max(np.abs(looked_up / priced - 1)))


def missed(found: dict[str, Any]) -> list[str]:
    """Every bar that is missed, one line each."""
    out = [
        f"{mode}: {found[mode]['per_s']:,.0f} a second, bar {bar:,.0f}"
        for mode, bar in BARS.items()
        if found[mode]["per_s"] < bar
    ]
    out += [f"MAPE {found['mape_percent']:.2f} %"] if found["mape_percent"] > MAPE_BAR else []
    out += [f"tau {found['tau']:.3f}"] if found["tau"] < TAU_BAR else []
    out += [f"tables differ by {found['tables_gap']:.1e}"] if found["tables_gap"] > SAME_BAR else []
    return out + [f"{m}: {n} compiles" for m, n in found["compiles"].items() if n != 1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table and a line of JSON; 1 where `--check` finds a bar missed."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.throughput", description=__doc__)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT}")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args(arguments)
    prepare_runtime()
    found = measure(asked.seed, asked.networks)
    shown = Table("mode", "a second", "by CPU time", "bar", "x referee", title="Networks priced, 2 cores")
    for mode in BARS:
        shown.add_row(mode, *(f"{value:,.0f}" for value in found[mode].values()))
    console = Console()
    console.print(shown)
    console.print(
        f"timed mode: MAPE {found['mape_percent']:.2f} %, tau {found['tau']:.3f}, {asked.networks} networks"
    )
    print(json.dumps(found))
    if asked.write:
        write_json(RESULT, found)
    failures = missed(found) if asked.check else []
    for line in failures:
        print(f"missed: {line}", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
