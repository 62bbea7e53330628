"""Figures of a result, each returned as one deterministic SVG string (matplotlib, Agg, no pyplot).

Colours are the colour-blind safe set of Okabe and Ito (2008); a second sign (hatch, marker, line style or
place) always says the same thing as a colour, so the figures also read in grey.
"""

import io
import itertools
import math
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from research.report.chain import before_and_after, full_arm
from research.report.schema import Layer, Number, check_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = Mapping[str, Sequence[Number]]

BLUE, ORANGE, GREEN, PINK = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
SKY, RED = "#56b4e9", "#d55e00"
INK, FAINT, PAPER = "#222426", "#d5d8dc", "#ffffff"
WIDTH_IN, LINE_IN, MARGIN_IN = 5.6, 0.42, 0.75
NAME_CHARS = 26  # longer names are broken into lines or cut
CURVE_POINTS = 120
LINE_COLORS = (BLUE, RED, GREEN, PINK, ORANGE, SKY)
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, read aloud
    "svg.hashsalt": "research.report",
    "font.family": "sans-serif",
    "font.size": 10,
    "hatch.linewidth": 0.8,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "savefig.facecolor": "none",
}


def latency_figure(result: Mapping[str, Any]) -> str:
    """Milliseconds a frame by row: our simulation beside the referee."""
    rows = check_result(result)["rows"]
    names = [f"{row['row']} {row['name']}" for row in rows]
    series = {
        "referee (Vela)": [row["ms_referee"] for row in rows],
        "simulated (ours)": [row["ms_simulated"] for row in rows],
    }
    return _bars(names, series, (BLUE, SKY), "ms a frame", "{:.3f}")


def error_figure(result: Mapping[str, Any]) -> str:
    """Mean keypoint error by row in pixels: the float network beside the exported int8 file in LiteRT."""
    rows = check_result(result)["rows"]
    names = [f"{row['row']} {row['name']}" for row in rows]
    series = {
        "int8 (LiteRT)": [row["error_px_int8"] for row in rows],
        "float": [row["error_px_float"] for row in rows],
    }
    return _bars(names, series, (RED, ORANGE), "mean keypoint error, px", "{:.2f}")


def stages_figure(result: Mapping[str, Any]) -> str:
    """Simulated latency and error at the end of each stage of the full arm, side by side."""
    checked = check_result(result)
    stages = checked["arms"][full_arm(checked)]["stages"]
    names = [stage["stage"] for stage in stages]
    with _figure(MARGIN_IN + LINE_IN * max(len(names), 2)) as (figure, picture):
        left, right = figure.subplots(1, 2, sharey=True)
        ms, error_px = [s["ms_simulated"] for s in stages], [s["error_px"] for s in stages]
        _panel(left, names, {"": ms}, (SKY,), "simulated ms a frame", "{:.3f}")
        _panel(right, names, {"": error_px}, (ORANGE,), "mean error, px", "{:.2f}")
        right.tick_params(axis="y", labelleft=False)
    return picture()


def training_figure(result: Mapping[str, Any]) -> str:
    """Error against training step (logarithmic error), one line for each arm of the table.

    A long curve is drawn as means over equal windows, at most CURVE_POINTS of them.
    """
    checked = check_result(result)
    drawn: dict[str, list[tuple[float, float]]] = {}
    for name in dict.fromkeys(row["arm"] for row in checked["rows"]):
        train = checked["arms"][name]["train"]
        pairs = zip(train["step"], train["error_px"], strict=True)
        points = curve_means([(step, error_px) for step, error_px in pairs if error_px is not None])
        drawn |= {name: points} if points else {}
    with _figure(3.1) as (figure, picture):
        axes = figure.subplots()
        looks = itertools.cycle(zip(LINE_COLORS, LINE_STYLES, strict=True))
        for (name, points), (color, style) in zip(drawn.items(), looks, strict=False):
            steps, errors_px = zip(*points, strict=True)
            axes.plot(steps, errors_px, color=color, linestyle=style, linewidth=1.8, label=_plain(name))
        if all(error_px > 0 for points in drawn.values() for _, error_px in points):
            axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="both", length=0)
        axes.grid(axis="y", which="both", linewidth=0.6)
        axes.set_xlabel("training step")
        axes.set_title("mean keypoint error, px", fontweight="normal")
        if drawn:
            axes.legend()
    return picture()


def layers_figure(result: Mapping[str, Any]) -> str:
    """Cycles a layer before (row 0's network) and after (the full chain) on one chip.

    Bars are the referee's cycles, the vertical tick is our simulation, "2:4" marks layers whose weights the
    referee itself stores as Sparse2_4. Layers that were removed have one bar only.
    """
    _needed()
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    before, after = before_and_after(check_result(result))
    names = list(dict.fromkeys([layer["name"] for layer in (*before.layers, *after.layers)]))
    with _figure(MARGIN_IN + 0.3 + 0.36 * max(len(names), 3)) as (figure, picture):
        axes = figure.subplots()
        signs = []
        for word, side, color, shift in (("before", before, ORANGE, -0.2), ("after", after, BLUE, 0.2)):
            layers = {layer["name"]: layer for layer in side.layers}
            _layer_bars(axes, layers, names, color, shift)
            signs.append(Patch(color=color, label=f"{word} (referee)"))
        tick = Line2D([], [], color=INK, linestyle="", marker="|", markersize=9, markeredgewidth=1.8)
        tick.set_label("simulated (ours)")
        axes.set_yticks(range(len(names)), [_plain(name) for name in names])
        axes.invert_yaxis()
        axes.margins(x=0.08, y=0.01)
        _finish(axes, "cycles on " + " and ".join(dict.fromkeys([before.chip, after.chip])))
        _legend(figure, [*signs, tick])
    return picture()


def curve_means(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most CURVE_POINTS points, each the mean of a window of neighbours."""
    width = math.ceil(len(points) / CURVE_POINTS) or 1
    windows = [points[i : i + width] for i in range(0, len(points), width)]
    return [(statistics.fmean(x for x, _ in w), statistics.fmean(y for _, y in w)) for w in windows]


def _layer_bars(
    axes: "Axes", layers: Mapping[str, Layer], names: Sequence[str], color: str, shift: float
) -> None:
    """One network's bars, ticks and 2:4 marks; `shift` moves them within a layer's line."""
    found = [(i + shift, layers[name]) for i, name in enumerate(names) if name in layers]
    bars = [(y, layer["cycles_referee"]) for y, layer in found if layer["cycles_referee"] is not None]
    ticks = [(y, layer["cycles_simulated"]) for y, layer in found if layer["cycles_simulated"] is not None]
    axes.barh([y for y, _ in bars], [c for _, c in bars], 0.36, color=color)
    axes.plot([c for _, c in ticks], [y for y, _ in ticks], "|", color=INK, markersize=7, markeredgewidth=1.6)
    for y, layer in found:
        if layer["weight_format"] == "Sparse2_4":
            end = max(layer["cycles_referee"] or 0.0, layer["cycles_simulated"] or 0.0)
            mark = axes.annotate("2:4", (end, y), xytext=(6, 0), textcoords="offset points", va="center")
            mark.set(color=color, fontsize=8, fontweight="bold")


def _bars(names: Sequence[str], series: Series, colors: Sequence[str], label: str, form: str) -> str:
    """One panel of horizontal bars: a group a name, a bar a series."""
    with _figure(MARGIN_IN + 0.3 + LINE_IN * len(series) * 0.62 * max(len(names), 2)) as (figure, picture):
        axes = figure.subplots()
        _panel(axes, names, series, colors, label, form)
        _legend(figure, axes.get_legend_handles_labels()[0])
    return picture()


def _legend(figure: "Figure", handles: Sequence[Any]) -> None:
    """One line of signs above the axes."""
    figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.2, handlelength=1.3)


def _panel(
    axes: "Axes", names: Sequence[str], series: Series, colors: Sequence[str], label: str, form: str
) -> None:
    """Fills `axes` with bars; the number stands at each bar's end and an unknown one leaves a dash."""
    thick = 0.76 / len(series)
    for i, ((name, values), color) in enumerate(zip(series.items(), colors, strict=True)):
        where = [y + (i - (len(series) - 1) / 2) * thick for y in range(len(names))]
        drawn = axes.barh(
            where, [value or 0.0 for value in values], thick * 0.9, color=color, label=_plain(name)
        )
        if i % 2:
            for bar in drawn:
                bar.set_hatch("////")
                bar.set_edgecolor(PAPER)
                bar.set_linewidth(0)
        axes.bar_label(
            drawn, [form.format(v) if v is not None else "–" for v in values], padding=3, fontsize=9
        )
    axes.set_yticks(range(len(names)), [_lines(name) for name in names])
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.margins(x=0.16)
    _finish(axes, label)


def _finish(axes: "Axes", label: str) -> None:
    """Quiet axes: vertical grid behind the bars, no ticks, few numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_axisbelow(True)
    axes.grid(axis="x", linewidth=0.6)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel(label)


def _lines(text: str) -> str:
    """A name beside its bar: at most three short lines."""
    return "\n".join(_plain(line) for line in textwrap.wrap(text, NAME_CHARS, max_lines=3, placeholder=" …"))


def _plain(text: str) -> str:
    """`text` as matplotlib should draw it: short, and not hidden from a legend by a leading "_"."""
    short = text if len(text) <= NAME_CHARS else text[: NAME_CHARS - 1] + "…"
    return "\u200b" * short.startswith("_") + short


@contextmanager
def _figure(height_in: float) -> Iterator[tuple["Figure", Any]]:
    """A new figure under our settings, and a function that returns it as SVG after the block."""
    _needed()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    file = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, file.getvalue
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)


def _needed() -> None:
    """Raises ModuleNotFoundError naming the extra to install if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("needs the optional package matplotlib: pip install '.[report]'") from error
