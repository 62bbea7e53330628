"""A sweep's results for people: trials.csv, pareto.csv, pareto.md and pareto.png, the same bytes whatever happened.

Rows come in the order of the trials; no time, no machine and no count of attempts is in them.
"""

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from launch.plan import Point
from launch.store import Store

Metrics = Mapping[str, float]
Row = dict[str, Any]


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in the last row of a trial's table. ValueError for a result without one."""
    rows = result.get("rows")
    if not rows:
        raise ValueError("a result.json has no rows")
    numbers = (
        (key, value) for key, value in rows[-1].items() if key != "row" and not isinstance(value, bool)
    )
    return {key: value for key, value in numbers if isinstance(value, int | float)}


def feasible(metrics: Metrics, constraints: Mapping[str, float]) -> bool:
    """Whether every constrained metric is there and at most its bound."""
    return all(metrics.get(name, math.inf) <= bound for name, bound in constraints.items())


def front(
    found: Mapping[int, Metrics],
    objectives: Mapping[str, str],
    constraints: Mapping[str, float] | None = None,
) -> list[int]:
    """The numbers of the trials that none beats: feasible, and no other as good in all objectives and better in one.

    Trials that lack an objective, or whose objective is not finite, are left out. Without objectives there are none.
    """
    if not objectives:
        return []
    costs = {
        number: tuple(
            metrics.get(name, math.nan) * (1 if way == "min" else -1) for name, way in objectives.items()
        )
        for number, metrics in found.items()
        if feasible(metrics, constraints or {})
    }
    costs = {number: cost for number, cost in costs.items() if all(map(math.isfinite, cost))}
    kept: list[int] = []
    least = dict[tuple[float, ...], None]()  # costs on the front, in their order
    for number, cost in sorted(costs.items(), key=lambda pair: (pair[1], pair[0])):
        if cost not in least and any(
            all(a <= b for a, b in zip(other, cost, strict=True)) for other in least
        ):
            continue
        least[cost] = None
        kept.append(number)
    return sorted(kept)


def rows_of(
    states: Mapping[int, str], points: Mapping[int, Point], found: Mapping[int, Metrics]
) -> list[Row]:
    """A row a trial: its number, what became of it (one word, without exit codes), its point, its metrics."""
    rows = []
    for number, state in sorted(states.items()):
        row = {"trial": number, "state": state.split()[0]} | dict(points[number])
        rows.append(row | {key: x for key, x in found.get(number, {}).items() if key not in row})
    return rows


def csv_text(rows: Sequence[Row]) -> str:
    """Rows as CSV with a column for every key, in order of appearance; None and what is lacking are empty."""
    text = io.StringIO()
    columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *([row.get(column) for column in columns] for row in rows)])
    return text.getvalue()


def markdown(rows: Sequence[Row], objectives: Mapping[str, str]) -> str:
    """Rows as a Markdown table, numbers to four digits; a line says what was wanted."""
    wanted = ", ".join(f"{name} ({way})" for name, way in objectives.items()) or "nothing"
    if not rows:
        return f"No trial is on the front. Wanted: {wanted}.\n"
    columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_short(row.get(column)) for column in columns] for row in rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{len(rows)} trials that no other beats. Wanted: {wanted}.\n\n{table}\n"


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def picture(found: Mapping[int, Metrics], best: Sequence[int], objectives: Mapping[str, str]) -> bytes:
    """A PNG: trials by their first two objectives, the front in colour. ValueError for fewer than two objectives.

    Needs matplotlib (extra `report`).
    """
    if len(objectives) < 2:
        raise ValueError("a front is drawn over two objectives")
    from matplotlib.figure import Figure  # an extra

    x, y = list(objectives)[:2]
    figure = Figure(figsize=(6, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    beaten = [number for number in sorted(found) if number not in set(best)]
    for numbers, colour, label in ((beaten, "0.65", "beaten"), (best, "tab:red", "on the front")):
        seen = [n for n in numbers if all(math.isfinite(found[n].get(name, math.nan)) for name in (x, y))]
        axes.scatter(
            [found[n][x] for n in seen], [found[n][y] for n in seen], s=22, color=colour, label=label
        )
    for n in best:
        place = (found[n][x], found[n][y])
        axes.annotate(str(n), place, fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set_xlabel(f"{x} ({objectives[x]})")
    axes.set_ylabel(f"{y} ({objectives[y]})")
    axes.grid(alpha=0.3)
    axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def write_table(
    store: Store,
    states: Mapping[int, str],
    points: Mapping[int, Point],
    found: Mapping[int, Metrics],
    objectives: Mapping[str, str],
    constraints: Mapping[str, float] | None = None,
    drawn: bool = True,
) -> None:
    """Writes trials.csv, and with objectives pareto.csv, pareto.md and (two of them, matplotlib there) pareto.png.

    `drawn` False leaves the picture out: it takes half a second, the rest milliseconds.
    """
    rows = rows_of(states, points, found)
    store.write_bytes("trials.csv", csv_text(rows).encode())
    if not objectives:
        return
    best = front(found, objectives, constraints)
    chosen = [row for row in rows if row["trial"] in set(best)]
    store.write_bytes("pareto.csv", csv_text(chosen).encode())
    store.write_bytes("pareto.md", markdown(chosen, objectives).encode())
    if drawn and len(objectives) > 1:
        try:
            data = picture(found, best, objectives)
        except ModuleNotFoundError:
            return
        store.write_bytes("pareto.png", data)
