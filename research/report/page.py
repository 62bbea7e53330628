"""The report: one self-contained HTML file (inline style and SVG, images as data URIs, no script)."""

import importlib.resources
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.report import figures
from research.report.atomic import write_text
from research.report.chain import before_and_after, full_arm
from research.report.inline import inline_svg
from research.report.schema import Result, check_result
from research.report.sections import context
from research.report.tables import decimals


def write_report(result: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Writes the report of `result` to `path` and returns it; an old report stays until the new one is whole.

    Raises ValueError if the result lacks a field, ModuleNotFoundError if matplotlib or jinja2 is missing, and
    OSError if `path` cannot be written.
    """
    html = render(result)
    write_text(path, html)
    return Path(path)


def render(result: Mapping[str, Any]) -> str:
    """The report as HTML text; the same result always gives the same text."""
    try:
        import jinja2
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("needs the optional package jinja2: pip install '.[report]'") from error
    checked = check_result(result)
    folder = importlib.resources.files("research.report")
    files = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css")}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(files),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["decimals"] = decimals
    environment.filters["zip"] = zip
    drawn = {name: Markup(svg) for name, svg in _figures(checked).items()}
    page = environment.get_template("page.html")
    return page.render(context(checked), figures=drawn, style=Markup(files["page.css"]))


def _figures(result: Result) -> dict[str, str]:
    """Name -> inline SVG; a figure that would have nothing to show is left out."""
    arm = result["arms"][full_arm(result)]
    before, after = before_and_after(result)
    wanted = {
        "latency": (figures.latency_figure, "Milliseconds a frame by row, simulated and referee", True),
        "error": (figures.error_figure, "Mean keypoint error by row, float and int8", True),
        "stages": (
            figures.stages_figure,
            "Latency and error after each stage of the full chain",
            arm["stages"],
        ),
        "training": (
            figures.training_figure,
            "Error during training of each network",
            any(result["arms"][row["arm"]]["train"]["step"] for row in result["rows"]),
        ),
        "layers": (
            figures.layers_figure,
            f"Cycles of each layer, before ({before.arm}) and after ({after.arm}), on {after.chip}",
            before.layers or after.layers,
        ),
    }
    return {
        name: inline_svg(draw(result), f"fig-{name}", label)
        for name, (draw, label, shown) in wanted.items()
        if shown
    }
