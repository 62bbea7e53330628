"""The fidelity bench's tables: all figures of a chip, and where a price is furthest off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from research.bench.pricing import Priced
from research.npu import LayerVerdict, Network, Verdict

_WIDTH = 170
_OURS = ("block", "mac_cycles", "traversal", "slices", "depth_slices", "buffering", "sparse", "weight_bytes")


def show(title: str, figures: Mapping[str, Any]) -> None:
    """Prints the figures of one chip as `fidelity.measure` gives them."""
    faces = figures["faces"]
    table = Table("", "MAPE %", "Kendall tau", title=title)
    for face, own in faces.items():
        mape, tau = ([f"{x:.3f}" for x in own[f"{name}_interval"]] for name in ("mape", "tau"))
        table.add_row(
            face,
            f"{own['mape_percent']:.2f} ({' .. '.join(mape)})",
            f"{own['tau']:.4f} ({' .. '.join(tau)})",
        )
    for name in ("regression", "macs_only"):
        row = figures["baselines"]
        table.add_row(name, f"{row[f'{name}_mape_percent']:.1f}", f"{row[f'{name}_tau']:.3f}")
    layers = Table("layer", "number", *(f"{face}: median, mean %" for face in faces))
    first = next(iter(faces.values()))
    for kind, (count, _, _) in first["layers"].items():
        cells = ["{1:.2f}, {2:.2f}".format(*own["layers"][kind]) for own in faces.values()]
        layers.add_row(kind, str(count), *cells)
    other = Table("figure", *faces)
    for name in (name for name, value in first.items() if isinstance(value, float | int)):
        other.add_row(name, *(f"{own[name]:.4g}" for own in faces.values()))
    for group in ("edits_by_kind", "ablations"):
        for name in first.get(group, {}):
            rows = [own[group].get(name, {}) for own in faces.values()]
            other.add_row(f"{group}: {name}", *(_joined(r) for r in rows))
    if "edits" in first:
        other.add_row("edits", *(_joined(own["edits"]) for own in faces.values()))
    Console(width=_WIDTH).print(table, layers, other)


def _joined(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def show_worst(
    face: str,
    networks: Sequence[Network],
    verdicts: Sequence[Verdict],
    prices: Sequence[Priced],
    count: int,
    whole: int,
) -> None:
    """Prints the layers and networks whose price is furthest from the compiler's.

    Args:
      count: how many of each.
      whole: the first so many are whole networks, the rest single layers between others.
    """
    off = [(abs(p.total / v.cycles - 1), i) for i, (p, v) in enumerate(zip(prices, verdicts, strict=True))]
    table = Table(
        "network", "off %", "ours, cycles", "compiler's", "SRAM KiB ours", "compiler's", "most of it"
    )
    for share, i in sorted(off[:whole], reverse=True)[:count]:
        gaps = _gaps(prices[i], verdicts[i])
        most = "; ".join(f"{n} {a:.0f} for {b:.0f}" for _, n, a, b in gaps[:3])
        cells = [f"{share * 100:.2f}", f"{prices[i].total:.0f}", f"{verdicts[i].cycles:.0f}"]
        table.add_row(str(i), *cells, f"{prices[i].sram_kb:.1f}", f"{verdicts[i].sram_kb:.1f}", most)
    rows = [
        (gap / max(theirs, 1.0), gap, i, name, ours, theirs)
        for i, (price, verdict) in enumerate(zip(prices, verdicts, strict=True))
        for gap, name, ours, theirs in _gaps(price, verdict)
        if i < whole or name == "layer"
    ]
    layers = Table("net", "layer", "off %", "cycles", "of", "what", "compiler", "ours", show_lines=True)
    for _, _, i, name, ours, theirs in sorted(rows, reverse=True)[:count]:
        off_percent = (ours / theirs - 1) * 100 if theirs else float("inf")
        said = next((layer for layer in verdicts[i].layers if layer.name == name), None)
        own = next((layer for layer in prices[i].layers if layer.name == name), None)
        cells = [f"{off_percent:+.1f}", f"{ours:.0f}", f"{theirs:.0f}", _what(networks[i], name)]
        layers.add_row(
            f"{i}" if i < whole else f"layer {i - whole}", name, *cells, _compilers(said), _ours(own)
        )
    cycles = Table("what", "layers", "gap, cycles", "share of all %", title="where all the error is")
    total = sum(v.cycles for v in verdicts[:whole])
    by_op: dict[str, list[float]] = {}
    for _, gap, i, name, _, _ in rows:
        if i < whole:
            by_op.setdefault(_what(networks[i], name).split(" ")[0], []).append(gap)
    for op, each in sorted(by_op.items(), key=lambda x: -sum(x[1])):
        cycles.add_row(op, str(len(each)), f"{sum(each):.0f}", f"{sum(each) / total * 100:.3f}")
    mean = float(np.mean([share for share, _ in off[:whole]]) * 100)
    Console(width=_WIDTH).print(table, layers, cycles, f"{face}: MAPE {mean:.3f} % of {whole} networks")


def _gaps(price: Priced, verdict: Verdict) -> list[tuple[float, str, float, float]]:
    """(|ours - theirs|, layer, ours, theirs), largest first, of every layer that either knows."""
    theirs = {layer.name: layer.cycles for layer in verdict.layers}
    names = dict.fromkeys([*theirs, *price.cycles])
    pairs = [(name, price.cycles_of(name), theirs.get(name, 0.0)) for name in names]
    return sorted(((abs(a - b), name, a, b) for name, a, b in pairs), reverse=True)


def _what(network: Network, name: str) -> str:
    if name not in network.names:
        return "unknown"
    row, graph = network.names.index(name), network.graph
    node, table = graph.nodes[row], network.table
    source = graph.shape(node.inputs[0]) if node.inputs else ()
    kernel = node.kernel_shape[:2] or node.window
    sparse = " 2:4" if float(table.sparse[row]) else ""
    sizes = "x".join(map(str, source[1:])) + " > " + "x".join(map(str, graph.shape(name)[1:]))
    bits = int(table.bits[row])
    return f"{node.op} {sizes} k{kernel} s{node.strides[0]} {bits} bit{sparse} {node.activation}"


def _compilers(layer: LayerVerdict | None) -> str:
    if layer is None:
        return "not a layer of its own"
    return (
        f"block {layer.ofm_block} of {layer.ifm_block} mac {layer.mac_cycles:.0f} out {layer.output_cycles:.0f} "
        f"npu {layer.npu_cycles:.0f} sram {layer.sram_cycles:.0f} flash {layer.flash_cycles:.0f} {layer.traversal} "
        f"{layer.depth_slices} slices {layer.buffering} {layer.weight_format} {layer.weight_bytes:.0f} B, "
        f"{layer.rows} rows"
    )


def _ours(layer: Any) -> str:
    if layer is None:
        return ""
    return ", ".join(f"{name} {getattr(layer, name)}" for name in _OURS if hasattr(layer, name))
