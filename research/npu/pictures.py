"""Two pictures of a price, as SVG text: the roofline of its layers, and SRAM in use over a frame (matplotlib, Agg)."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from research.npu.chip import Chip
from research.npu.named import AnyChip
from research.npu.price import LayerPrice, Price

# Okabe and Ito's colours; the marker says the same, so that the picture reads in grey.
SIGNS = {
    "mac": ("#0072b2", "o"), "output": ("#e69f00", "s"), "wait": ("#cc79a7", "D"),
    "sram": ("#009e73", "^"), "flash": ("#d55e00", "v"), "cpu": ("#222426", "x"),
}  # fmt: skip
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "research.npu", "font.size": 9, "text.parse_math": False,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip


def roofline(price: Price, chip: AnyChip) -> str:
    """Multiply-accumulates a cycle of each layer over those a byte of SRAM and of flash, under the chip's roofs.

    Layers without multiplications are left out. ValueError where none has any; ModuleNotFoundError without matplotlib.
    """
    layers = [layer for layer in price.layers if layer.macs > 0 and layer.cycles > 0]
    if not layers:
        raise ValueError("no layer multiplies: there is no roofline to draw")
    sram, flash = _bandwidths(chip)
    with _figure(3.4) as (figure, text):
        panels = figure.subplots(1, 2, sharey=True)
        for axes, memory, bandwidth in zip(panels, ("sram", "flash"), (sram, flash), strict=True):
            _roof(axes, layers, memory, bandwidth, chip)
        panels[0].set_ylabel("MACs a cycle")
        panels[1].legend(fontsize=8)
        figure.suptitle(f"{price.chip}: {price.ms:.3f} ms simulated", fontsize=10)
    return text()


def sram_timeline(price: Price, names: Sequence[str], live_kb: Sequence[float]) -> str:
    """KiB of live activations over the milliseconds of a frame; `names` and `live_kb` as `live_bytes` orders them.

    ValueError where the two differ in length or no layer takes time; ModuleNotFoundError without matplotlib.
    """
    if len(names) != len(live_kb):
        raise ValueError(f"{len(names)} names but {len(live_kb)} sizes")
    each = dict(zip(names, live_kb, strict=True))
    at, edges, heights = 0.0, [0.0], list[float]()
    for layer in (layer for layer in price.layers if layer.cycles > 0):
        at += layer.cycles / price.cycles * price.ms
        edges.append(at)
        heights.append(each[layer.name])
    if not heights:
        raise ValueError("no layer takes time: there is no timeline to draw")
    with _figure(2.6) as (figure, text):
        axes = figure.subplots()
        axes.stairs(heights, edges, fill=True, color="#56b4e9")
        axes.axhline(max(heights), color="#d55e00", linestyle="--", linewidth=1)
        axes.annotate(
            f"{max(heights):.0f} KiB", (edges[-1], max(heights)), ha="right", va="bottom", fontsize=8
        )
        axes.set(xlabel="ms of the frame (simulated)", ylabel="live activations, KiB")
        axes.set_title(price.chip, fontsize=10)
    return text()


def _bandwidths(chip: AnyChip) -> tuple[float, float]:
    if isinstance(chip, Chip):
        return chip.sram.bytes_per_cycle, chip.flash.bytes_per_cycle
    return chip.sram_bytes_per_cycle, chip.flash_bytes_per_cycle


def _roof(axes: Any, layers: Sequence[LayerPrice], memory: str, bandwidth: float, chip: AnyChip) -> None:
    points = [(layer.macs / max(getattr(layer, f"{memory}_bytes"), 1.0), layer) for layer in layers]
    low, high = min(x for x, _ in points) / 2, max(x for x, _ in points) * 2
    ridge = chip.macs_per_cycle / bandwidth
    ends = sorted({min(low, ridge / 2), ridge, max(high, ridge * 2)})
    axes.plot(ends, [min(chip.macs_per_cycle, bandwidth * x) for x in ends], color="#222426", linewidth=1)
    for word, (color, marker) in SIGNS.items():
        bound = [(x, layer.macs / layer.cycles) for x, layer in points if layer.bound_by == word]
        if bound:
            axes.scatter(
                *zip(*bound, strict=True), s=18, color=color, marker=marker, label=f"bound by {word}"
            )
    axes.set(xscale="log", yscale="log", xlabel=f"MACs a byte of {memory}")


@contextmanager
def _figure(height_in: float) -> Iterator[tuple[Any, Any]]:
    """A new figure, and a function that returns it as SVG after the block."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("needs the optional package matplotlib: pip install '.[report]'") from error
    file = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.0, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, file.getvalue
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
