"""`python -m research.npu price NET.tflite --chip u85-128 [--plan] [--referee] [--json] [--against u55-128]
[--plots DIR]`,
`python -m research.npu calibrate MEASURED.csv --chip my_npu.py [--json]` and `python -m research.npu chips`."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from research.npu.calibrate import Calibration, calibrate, outside, predict_ms
from research.npu.liveness import live_bytes
from research.npu.measured import networks_of, read_measured
from research.npu.named import find_chip, known_chips
from research.npu.network import read_network
from research.npu.pictures import roofline, sram_timeline
from research.npu.price import Price, price


def main(argv: list[str] | None = None) -> int:
    """Runs one of the three commands; 2 and one line on standard error for bad input."""
    parser = argparse.ArgumentParser(prog="python -m research.npu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("price", help="where the time of a quantised .tflite goes on a chip")
    one.add_argument("network", help="a .tflite file, int8 or int16x8, from anywhere")
    one.add_argument(
        "--chip", default="u85-128", help="a name of `chips`, or a Python file that makes a CHIP"
    )
    one.add_argument("--referee", action="store_true", help="Arm's compiler beside it, in a child process")
    one.add_argument("--plan", action="store_true", help="the exact planner beside it, weight buffers in its SRAM")
    one.add_argument("--against", help="a second chip, compared layer by layer")
    one.add_argument("--plots", help="write roofline.svg and sram.svg into this folder")
    one.add_argument("--timeout-s", type=float, default=120.0, help="of the compiler")
    two = commands.add_parser("calibrate", help="fit gains of a chip to measurements: network,layer,ms")
    two.add_argument("measured", help="a CSV file; networks are paths from where it lies")
    two.add_argument("--chip", default="u85-128")
    two.add_argument("--predict", help="a .tflite to predict with the gains found")
    for command in (one, two):
        command.add_argument("--json", action="store_true", help="one line of JSON and no table")
    commands.add_parser("chips", help="the chips there are")
    args = parser.parse_args(argv)
    try:
        return {"price": _price, "calibrate": _calibrate, "chips": _chips}[args.command](args)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _chips(args: argparse.Namespace) -> int:
    table = Table("name", "chip", "MACs a cycle", "MHz", "2:4")
    for name, chip in known_chips().items():
        cells = (f"{chip.macs_per_cycle}", f"{chip.clock_mhz:g}", "yes" if chip.sparse_2_4 else "no")
        table.add_row(name, chip.name, *cells)
    Console(width=100).print(table)
    return 0


def _price(args: argparse.Namespace) -> int:
    chip = find_chip(args.chip)
    against = find_chip(args.against) if args.against else None
    model = Path(args.network).read_bytes()
    found = price(
        model, chip, referee=args.referee, against=against, planned=args.plan, timeout_s=args.timeout_s
    )
    if args.plots:
        network, folder = read_network(model), Path(args.plots)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "roofline.svg").write_text(roofline(found, chip))
        live = [size / 1024 for size in live_bytes(network.graph, bits=network.bits)]
        (folder / "sram.svg").write_text(sram_timeline(found, network.names, live))
    if args.json:
        print(json.dumps({"network": args.network, **found.as_dict()}, allow_nan=False))
    else:
        Console(width=150).print(price_table(found), *price_lines(found), sep="\n", highlight=False)
    return 0


def price_table(found: Price) -> Table:
    """Every layer of a price, in the order of execution."""
    columns = ["layer", "op", "cycles", "share", "bound by", "SRAM kB", "flash kB", "MACs", "used", "2:4"]
    beside = found.planned_ms is not None, found.referee_ms is not None, found.against is not None
    columns += ["plan"] * beside[0] + ["referee"] * beside[1] + [str(found.against)] * beside[2]
    table = Table(*columns[:2])
    for column in columns[2:]:
        table.add_column(column, justify="right")
    for layer in found.layers:
        cells = [layer.name, layer.op, f"{layer.cycles:,.0f}", f"{layer.cycles / max(found.cycles, 1):.1%}"]
        cells += [layer.bound_by, f"{layer.sram_bytes / 1024:,.1f}", f"{layer.flash_bytes / 1024:,.1f}"]
        cells += [f"{layer.macs:,.0f}", f"{layer.utilisation:.0%}", "yes" if layer.sparse else ""]
        others = layer.planned_cycles, layer.referee_cycles, layer.against_cycles
        for asked, cycles in zip(beside, others, strict=True):
            cells += [("" if cycles is None else f"{cycles:,.0f}")] * asked
        table.add_row(*cells)
    return table


def price_lines(found: Price) -> list[str]:
    """The totals of a price in words, a line each."""
    lines = [
        f"{found.chip}: {found.ms:.3f} ms a frame simulated, {found.fps:,.0f} a second, {found.cycles:,.0f} cycles",
        f"{found.macs:,.0f} MACs, {found.weights:,} weights, array used {found.utilisation:.1%}; activations need "
        f"{found.sram_peak_kb:.0f} KiB of SRAM; a frame moves {found.sram_traffic_kb:,.0f} KiB in SRAM and reads "
        f"{found.flash_traffic_kb:,.0f} KiB from flash",
    ]
    if found.mj is not None:
        lines.append(f"{found.mj:.3f} mJ a frame (modelled, never measured)")
    if found.planned_ms is not None:
        lines.append(
            f"exact plan: {found.planned_ms:.3f} ms, {found.planned_sram_kb:.0f} KiB of SRAM with weight buffers"
        )
    if found.referee_ms is not None:
        gap = found.ms / found.referee_ms - 1 if found.referee_ms else 0.0
        missing = found.referee_elsewhere_cycles or 0.0
        if found.referee_cpu_ops or missing > 0.5:
            lines.append(
                f"referee: {found.referee_cpu_ops} operators left to the CPU and not counted, {missing:,.0f} cycles "
                "in operations that are no layer here"
            )
        sram = f"{found.referee_sram_kb:.0f} KiB of SRAM with weight buffers"
        lines.append(f"referee (Arm's compiler): {found.referee_ms:.3f} ms, we say {gap:+.1%}; {sram}")
    if found.against_ms is not None:
        lines.append(
            f"{found.against}: {found.against_ms:.3f} ms simulated, {found.against_ms / found.ms:.2f}x"
        )
    return lines


def _calibrate(args: argparse.Namespace) -> int:
    chip, measured = find_chip(args.chip), read_measured(args.measured)
    found = calibrate(chip, measured, networks_of(measured, Path(args.measured).parent))
    said = found.as_dict()
    if args.predict:
        network = read_network(Path(args.predict).read_bytes())
        said |= {"predicted_ms": predict_ms(found, network.table, warn=False)}
        said |= {"outside": list(outside(found, network.table))}
    print(json.dumps(said, allow_nan=False) if args.json else "\n".join(calibration_lines(found, said)))
    return 0


def calibration_lines(found: Calibration, said: dict[str, object]) -> list[str]:
    """A calibration in words, a line each; a prediction that extrapolates says so."""
    lines = [f"{found.chip.name}, {found.measurements} measurements"]
    lines += [f"  {name:<12}{value:8.3f}" for name, value in found.gains.items()]
    low, high = found.interval_percent
    lines.append(
        f"held out: {found.held_out_percent:.1f} % off in the mean (before: {found.before_percent:.1f} %), "
        f"90 % of residuals in {low:+.1f} .. {high:+.1f} %"
    )
    if "predicted_ms" in said:
        lines.append(f"predicted: {said['predicted_ms']:.3f} ms")
    outsiders = said.get("outside", [])
    return lines + [
        f"warning: extrapolates: {one}" for one in (outsiders if isinstance(outsiders, list) else [])
    ]


if __name__ == "__main__":
    sys.exit(main())
