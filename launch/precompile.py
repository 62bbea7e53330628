"""Compile a run for TPUs before a dollar is spent: does it compile, does it fit, what would it cost?

    python -m launch.precompile configs/v2.py --topology v5e:4x4 [a.b=value ...] [--trials P] [--scaling] [--json]

Every stage's real sharded step goes through the TPU compiler (extra `tpu-aot`; no TPU is needed). All numbers are the
compiler's estimates, none was measured. Exit codes: 0 all fits, 1 something does not, 2 bad input, 130 stopped.
"""

from __future__ import annotations

import argparse
import dataclasses as dc
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import Mesh
from rich import box
from rich.console import Console
from rich.table import Table

from launch.ahead import Estimate, Packing, Piece, estimate, lowered, pieces
from launch.chips import TpuChip, chip_of, tpu_mesh
from research.data.stream import drawn
from research.door import fingerprint, load
from research.pytrees import nearest
from research.spec import Experiment
from research.train.dispatch import STEPS
from research.train.ledger import check_experiment

Row = dict[str, Any]
COLUMNS = {
    "chips": "chips", "trials": "trials", "images_a_step": "images", "hbm_mb_chip": "HBM MB", "hbm_share": "of limit",
    "gflops_chip": "GFLOP", "traffic_mb_chip": "traffic MB", "roofline_ms": "roofline ms", "kernels_ms": "kernels ms",
    "collectives": "collectives", "images_s_chip": "images/s/chip", "roofline_share": "of roofline",
    "flops_share": "of peak", "steps": "steps", "hours": "hours", "efficiency": "efficiency",
    "efficiency_10us": "if 10 us a collective",
}  # fmt: skip
LATENCY_S = 10e-6
SCALING = ("2x2", "4x4", "8x8")


def row_of(stages: Sequence[str], chip: TpuChip, chips: int, batch: int, trials: int, found: Estimate) -> Row:
    """One compiled step as a row; `batch` images a step of each trial. Times are the larger of the compiler's two."""
    images, step = batch * max(1, trials), found.step_s
    numbers: Row = {
        "stages": list(stages),
        "chips": chips,
        "images_a_step": images,
        "trials": max(1, trials),
        "fits": not found.refused and found.hbm_bytes <= chip.hbm_bytes,
        "hbm_mb_chip": _round(found.hbm_bytes / 1e6),
        "hbm_share": _round(found.hbm_bytes / chip.hbm_bytes),
        "gflops_chip": _round(found.flops / 1e9),
        "traffic_mb_chip": _round(found.hbm_traffic / 1e6),
        "roofline_ms": _round(found.roofline_s * 1e3),
        "kernels_ms": _round(found.kernels_s * 1e3) if found.kernels_s else None,
        "step_ms": _round(step * 1e3),
        "collectives": found.collectives,
        "images_s_chip": _round(images / step / chips) if step else None,
        "roofline_share": _round(found.roofline_s / step) if found.kernels_s else None,
        "flops_share": _round(found.flops / step / chip.flops) if step else None,
        "compile_s": _round(found.compile_s),
    }
    return numbers | ({"refused": found.refused} if found.refused else {})


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def chosen(exp: Experiment, stage: str) -> tuple[Piece, ...]:
    """The pieces that run a stage called `stage`, such as "v2.0-dense"; "" for all. ValueError for an unknown one."""
    found = pieces(exp)
    names = [name for piece in found for name in piece.stages]
    if stage and stage not in names:
        raise ValueError(f"no stage {stage!r}; {nearest(stage, names)}")
    return tuple(piece for piece in found if not stage or stage in piece.stages)


def compile_run(
    exp: Experiment, parts: Sequence[Piece], mesh: Mesh, chip: TpuChip, packing: Packing, jobs: int
) -> list[Row]:
    """Pieces compiled for a mesh, as rows with the `steps` a run makes of each and their `hours`."""

    def one(piece: Piece) -> Estimate:
        return estimate(lowered(piece, exp.data, exp.optim.batch, mesh, packing), chip)

    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(one, parts))
    return [
        row_of(piece.stages, chip, mesh.size, exp.optim.batch, packing.trials, one)
        | {"steps": piece.steps, "hours": _round(piece.steps * one.step_s / 3600)}
        for piece, one in zip(parts, found, strict=True)
    ]


def totals(rows: Sequence[Row], chips: int) -> Row:
    """What the whole run takes: hours and chip-hours of its steps, its most HBM, whether all of it fits."""
    hours = sum(row.get("hours", 0.0) for row in rows)
    return {
        "fits": all(row["fits"] for row in rows),
        "hbm_mb_chip": max(row["hbm_mb_chip"] for row in rows),
        "hours": _round(hours),
        "chip_hours": _round(hours * chips),
    }


def compile_scaling(exp: Experiment, piece: Piece, chip: TpuChip, packing: Packing, jobs: int) -> list[Row]:
    """A piece on slices of 4, 16 and 64 chips, the same work a chip.

    First a batch a chip; then, if there are trials, so many a chip. `efficiency`: images a second and chip against the
    smallest slice; `efficiency_10us`: had each collective also 10 us of latency, an assumption of ours.
    """
    meshes = [tpu_mesh(f"{chip.name}:{shape}") for shape in SCALING]
    cases = [(mesh, trials) for trials in dict.fromkeys((0, packing.trials)) for mesh in meshes]

    def one(case: tuple[Mesh, int]) -> Row:
        mesh, trials = case
        batch = exp.optim.batch * (1 if trials else mesh.size)
        packed = dc.replace(packing, trials=trials * mesh.size)
        program = lowered(_with_batch(piece, batch), exp.data, batch, mesh, packed)
        return row_of(piece.stages, chip, mesh.size, batch, packed.trials, estimate(program, chip))

    with ThreadPoolExecutor(jobs) as pool:
        rows = list(pool.map(one, cases))
    firsts = [rows[i - i % len(meshes)] for i in range(len(rows))]
    return [row | efficiency(row, first) for row, first in zip(rows, firsts, strict=True)]


def efficiency(row: Row, first: Row) -> Row:
    """Images a second and chip of a row as a share of the smallest slice's, without and with collective latency."""
    if not (row["fits"] and first["fits"]):
        return {"efficiency": None, "efficiency_10us": None}
    share = row["images_s_chip"] / first["images_s_chip"]
    waits = row["step_ms"] + 1e3 * LATENCY_S * row["collectives"]
    return {"efficiency": _round(share), "efficiency_10us": _round(share * row["step_ms"] / waits)}


def _with_batch(piece: Piece, batch: int) -> Piece:
    optim = dc.replace(piece.program.optim, batch=batch)
    return dc.replace(piece, program=dc.replace(piece.program, optim=optim))


def show(report: Mapping[str, Any], console: Console) -> None:
    """Prints a report as tables."""
    title = f"{report['config']} on {report['topology']}, {report['compute']}: the compiler's estimates, not measured"
    if report["scaling"]:
        console.print(_table(f"{title}; the same work a chip", report["scaling"]))
        return
    console.print(_table(title, report["rows"]))
    whole, chip = report["total"], report["chip"]
    trials = f" of {report['trials']} trials" if report["trials"] else ""
    console.print(
        f"limit {chip['hbm_bytes'] / 1e6:,.0f} MB HBM a chip ({chip['source']}); most used "
        f"{whole['hbm_mb_chip']:,.0f} MB\n"
        f"all these steps{trials}: {whole['hours'] * 3600:.3g} s, {whole['hours']:.3g} h, "
        f"{whole['chip_hours']:.3g} chip-hours at least "
        "(no collective latency, no host, no checkpoints, no evaluation)"
    )


def _table(title: str, rows: Sequence[Row]) -> Table:
    columns = [name for name in COLUMNS if name in rows[0]]
    table = Table(title=f"{title}; a step, a chip", title_justify="left", box=box.SIMPLE)
    table.add_column("stages", no_wrap=True)
    for name in columns:
        table.add_column(COLUMNS[name], justify="right")
    for row in rows:
        stages, more = row["stages"], len(row["stages"]) - 1
        first = stages[0] + (f" +{more}" if more else "") + ("" if row["fits"] else " DOES NOT FIT")
        table.add_row(first, *(_cell(name, row[name]) for name in columns))
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith("_share") or name.startswith("efficiency"):
        return f"{value:.1%}"
    return f"{value:,.3g}" if isinstance(value, float) and value < 1e3 else f"{value:,.0f}"


def _parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m launch.precompile", description=(__doc__ or "").split("\n")[0]
    )
    add = out.add_argument
    add("config", help="a config file, such as configs/v2.py")
    add(
        "overrides",
        nargs="*",
        metavar="field.field=value",
        help="typed overrides, such as optim.compute=bfloat16",
    )
    add("--topology", default="v5e:4x4", help="chip and slice (default v5e:4x4, 16 chips)")
    add(
        "--steps", type=int, default=STEPS, metavar="K", help=f"steps a dispatch (default {STEPS}, as they run)"
    )
    add(
        "--trials",
        type=int,
        default=0,
        metavar="P",
        help="compile P trials in one program, split over the chips",
    )
    add("--one-seed", action="store_true", help="the trials share a seed: each batch is rendered once a chip")
    add("--stage", default="", help="compile only this stage, such as v2.0-dense (default: all)")
    add("--scaling", action="store_true", help="instead: weak scaling of one stage on 4, 16 and 64 chips")
    add("--smoke", action="store_true", help="shrink the config to seconds")
    add(
        "--jobs", type=int, default=os.cpu_count() or 1, help="programs compiled at once (default: all cores)"
    )
    add("--json", action="store_true", help="print JSON instead of tables")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, 1 (something does not fit), 2 (bad input, one line) or 130 (stopped)."""
    args = arguments_of(arguments)
    try:
        report = precompile(args)
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    except (OSError, ValueError, KeyError, TypeError, ModuleNotFoundError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 200))
    for problem in (found := problems(report)):
        print(f"error: {problem}", file=sys.stderr)
    return int(bool(found))


def arguments_of(words: Sequence[str] | None) -> argparse.Namespace:
    """The words of a command line, for `precompile`."""
    return _parser().parse_intermixed_args(words)


def problems(report: Mapping[str, Any]) -> list[str]:
    """One line for every compiled step that does not fit its chips."""
    lines = []
    for row in (*report["rows"], *report["scaling"]):
        over = f"{row['hbm_mb_chip']:,.0f} MB HBM a chip, {row['hbm_share']:.0%} of what there is"
        if not row["fits"]:
            lines.append(
                f"{row['stages'][0]} on {row['chips']} chips does not fit: {row.get('refused', over)}"
            )
    return lines


def precompile(args: argparse.Namespace) -> dict[str, Any]:
    """The report of one command line as plain JSON values. What is compiled never runs here: jax stays on the CPU."""
    jax.config.update("jax_platforms", "cpu")
    if args.steps < 1 or args.trials < 0 or args.jobs < 1:
        raise ValueError("--steps and --jobs must be at least 1, --trials at least 0")
    exp = load(args.config, *args.overrides, smoke=args.smoke)
    check_experiment(exp)
    chip, mesh = chip_of(args.topology), tpu_mesh(args.topology)
    parts, packing = chosen(exp, args.stage), Packing(args.steps, args.trials, args.one_seed)
    rows, scaling = [], []
    if args.scaling:
        first = next(piece for piece in parts if args.stage or piece.stages[0].startswith(f"{exp.target}."))
        each = dc.replace(packing, trials=args.trials // mesh.size)
        scaling = compile_scaling(exp, first, chip, each, args.jobs)
    else:
        rows = compile_run(exp, parts, mesh, chip, packing, args.jobs)
    return {
        "config": args.config,
        "fingerprint": fingerprint(exp),
        "overrides": list(args.overrides),
        "topology": args.topology,
        "compute": exp.optim.compute,
        "steps_a_dispatch": args.steps if drawn(exp.data) else 1,
        "trials": args.trials,
        "one_seed": args.one_seed,
        "compiler": _version(),
        "chip": dc.asdict(chip),
        "total": totals(rows or scaling, mesh.size),
        "rows": rows,
        "scaling": scaling,
    }


def _version() -> str:
    from importlib.metadata import version

    return f"jax {jax.__version__}, libtpu {version('libtpu')}"


if __name__ == "__main__":
    sys.exit(main())
