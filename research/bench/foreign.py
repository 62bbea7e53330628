"""Files nobody here made: `python -m research.bench.foreign FILES... [--check] [--chip u85-128] [--json-only]`.

Each .tflite is imported, run against LiteRT on random inputs, cleaned up, priced and written again. Float files
also go out as int8, with ranges seen on the random inputs; that form is run, priced and judged by the referee.
Bars, for every file that is imported and that LiteRT runs: float outputs within 1e-4 of the largest, integers of
both our interpreters equal to LiteRT's reference kernels, and what is written again gives the same outputs. The
column `spread` says by how much LiteRT's own two sets of kernels differ; it moves no bar.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from research.graph import oracle
from research.graph.exact import compile_exact
from research.graph.integer import quantise
from research.graph.interpret import observe
from research.graph.ir import WEIGHTED, parameter_count
from research.graph.program import LIMITS, Program
from research.graph.read import read
from research.graph.rewrite import optimise
from research.graph.runtime import run_raw
from research.graph.write import write
from research.npu import U55_128, U85_128, U85_512, Chip, cost, layer_table, referee_foreign, with_kernels
from research.npu.table import COPY, HOST
from research.train.runtime import prepare_runtime

BAR_FLOAT = 1e-4
CHIPS: Mapping[str, Chip] = {"u85-128": U85_128, "u85-512": U85_512, "u55-128": U55_128}
Arrays = tuple[np.ndarray, ...]


class Row(NamedTuple):
    """What is known of one file; None where it did not come to that."""

    file: str
    format: str = ""
    ops: int | None = None
    mmacs: float | None = None
    kparams: float | None = None
    error: float | None = None  # of a float output, relative to the largest
    spread: float | None = None  # the same, between LiteRT's default and reference kernels
    differing: int | None = None  # integers that are not LiteRT's, of the file or its int8 form
    ms: float | None = None  # simulated, on the NPU; of the int8 form
    ms_cpu: float | None = None  # assumed, for what the compiler leaves to the CPU
    ms_referee: float | None = None
    again: str = ""  # the file written again: "same", or how it differs
    note: str = ""
    missed: bool = False


def random_inputs(program: Program, rng: np.random.Generator) -> Arrays:
    """One array for each input: integers of the whole range of its type, or floats in [-1, 1)."""

    def one(name: str) -> np.ndarray:
        shape, dtype = program.graph.shape(name), program.dtype(name)
        low, high = LIMITS.get(dtype, (-1, 0))
        made = rng.uniform(-1, 1, shape) if dtype == "float32" else rng.integers(low, high + 1, shape)
        return np.asarray(made, dtype)

    return tuple(map(one, program.graph.inputs))


def compare(pairs: Iterable[tuple[Arrays, Arrays]], run: Callable[[Arrays], Any]) -> tuple[float, int]:
    """(largest difference of a float output, relative to its largest value; integers that differ).

    pairs: inputs and the outputs they should give. ValueError for outputs of another number, shape or type.
    """
    error, differing = 0.0, 0
    for inputs, truth in pairs:
        for a, b in zip(truth, map(np.asarray, run(inputs)), strict=True):
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                raise ValueError(f"an output is {b.dtype} {b.shape}, LiteRT's {a.dtype} {a.shape}")
            if a.dtype == np.float32:
                gap = np.max(np.abs(a - b), initial=0) / max(np.max(np.abs(a), initial=0), 1e-30)
                error = max(error, float(np.nan_to_num(gap, nan=np.inf)))
            else:
                differing += int((a != b).sum())
    return error, differing


def price(program: Program, chip: Chip) -> tuple[float, float]:
    """(ms on the NPU, ms assumed for the CPU) of an integer program with its own weights."""
    held = {n: program.integers[n.output].kernel for n in program.graph.nodes if n.output in program.integers}
    kernels = {
        str(n.kernel): k if n.op in WEIGHTED else program.scales[n.output].real(k) for n, k in held.items()
    }
    integer = [
        n.op == "quantize" and {n.inputs[0], n.output} <= set(program.scales) for n in program.graph.nodes
    ]
    bits = [16.0 if program.dtype(n.output) == "int16" else 8.0 for n in program.graph.nodes]
    table = with_kernels(layer_table(program.graph), program.graph, kernels)._replace(bits=jnp.asarray(bits))
    op = jnp.where(jnp.asarray(integer) & (table.op == HOST), COPY, table.op)  # uint8 to int8 runs on the NPU
    found = cost(table._replace(op=op), chip)
    on_cpu = float(found.host_cycles.sum()) / chip.cycles_per_ms
    return float(found.ms) - on_cpu, on_cpu


def quantised(program: Program, inputs: Iterable[Arrays]) -> Program:
    """The int8 form of a float program, with the ranges that its tensors have on the inputs."""
    seen = [observe(program.graph, program.params, i) for i in inputs]
    ranges = {name: (min(s[name][0] for s in seen), max(s[name][1] for s in seen)) for name in seen[0]}
    return quantise(program.graph, program.params, ranges)


def examine(path: Path, chip: Chip, count: int, rng: np.random.Generator) -> Row:
    """Everything the table says of one file, from `count` random inputs."""
    model, row = path.read_bytes(), Row(path.name)
    try:
        program = read(model)
    except ValueError as error:
        return row._replace(note=f"refused: {error}")
    graph, pairs = program.graph, list[tuple[Arrays, Arrays]]()
    row = row._replace(
        format="+".join(sorted({a.dtype for a in program.scales.values()})) or "float32",
        ops=sum(n.op != "constant" for n in graph.nodes),
        mmacs=graph.total_macs / 1e6,
        kparams=parameter_count(graph) / 1e3,
    )
    inputs = [random_inputs(program, rng) for _ in range(count)]
    try:
        pairs = [(i, run_raw(model, i)) for i in inputs]
    except ValueError as error:
        row = row._replace(note=str(error).splitlines()[0][:100])
    try:
        run = compile_exact(program)  # where LiteRT refuses, what is written again is held against this
        pairs = pairs or [(i, tuple(map(np.asarray, run(*i)))) for i in inputs]
        clean = program if program.scales else Program(*optimise(graph, program.params)[:2])
        form = clean if program.scales else quantised(clean, inputs)
        gap, differing = compare(pairs, lambda i: run(*i))
        shipped = write(form)
        judged = pairs if program.scales else [(i := random_inputs(form, rng), run_raw(shipped, i))]
        if form is not program:
            differing += compare(judged, lambda i: compile_exact(form)(*i))[1]
        differing += compare(judged, lambda i: oracle.run(form, i))[1]
        again = write(clean)
        drift, changed = compare(pairs, lambda i: run_raw(again, i))
        spread = 0.0 if program.scales else compare(pairs, lambda i: run_raw(again, i, reference=False))[0]
        ms, on_cpu = price(form, chip)
    except ValueError as error:
        return row._replace(note=f"failed: {error}", missed=not row.note)
    same, held = drift <= BAR_FLOAT and not changed, gap <= BAR_FLOAT and not differing
    row = row._replace(
        error=gap, spread=spread, differing=differing, ms=ms, ms_cpu=on_cpu, missed=not (row.note or (same and held)),
        again="same" if same else f"differs by {drift:.1e}, {changed} integers",
    )  # fmt: skip
    try:
        return row._replace(ms_referee=referee_foreign(shipped, chip).ms)
    except (ValueError, RuntimeError, TimeoutError) as error:
        return row._replace(note=f"referee: {str(error).splitlines()[0][:100]}")


def main(argv: list[str] | None = None) -> int:
    """Prints the table and the JSON line; 1 with --check when an imported file differs or fails."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.foreign", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILES", help=".tflite files")
    parser.add_argument("--chip", choices=CHIPS, default="u85-128")
    parser.add_argument("--inputs", type=int, default=2, help="random inputs a file")
    parser.add_argument("--json-only", action="store_true", help="print no table")
    parser.add_argument("--check", action="store_true", help="exit 1 when an imported file differs or fails")
    args = parser.parse_args(argv)
    prepare_runtime()
    rng, chip = np.random.default_rng(0), CHIPS[args.chip]
    rows = [examine(f, chip, args.inputs, rng) for f in tqdm(args.files, desc="files", disable=None)]
    table = Table(*Row._fields[:-1], title=f"against LiteRT, measured; ms on {chip.name}, simulated")
    for row in rows:
        cells = ("" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v) for v in row[:-1])
        table.add_row(*cells)
    if not args.json_only:
        Console(width=max(160, Console().width)).print(table)
    missed = [f"{row.file}: {row.note or row.again}" for row in rows if row.missed]
    print(json.dumps({"bench": "foreign", "files": [row._asdict() for row in rows], "missed": missed}))
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
