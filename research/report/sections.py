"""What stands in each section of the page, as plain values: the template computes nothing."""

import json
from collections.abc import Iterable
from typing import Any

from research.report.chain import Side, before_and_after, full_arm
from research.report.gallery import picture
from research.report.power import STORY_MJ, STORY_MS, STORY_MW, active_mw, needed_scale
from research.report.schema import Layer, Result
from research.report.story import Finding, findings
from research.report.tables import COLUMNS, SOURCES, UNKNOWN, caption, cells, decimals

FRAMES_PER_S = (30, 60)


def context(result: Result) -> dict[str, Any]:
    """Everything the template reads, apart from the figures and the style.

    Raises ValueError if an image of the gallery is not a PNG file.
    """
    before, after = before_and_after(result)
    arm = result["arms"][full_arm(result)]
    return {
        "result": result,
        "caption": caption(result),
        "once": result["n"] == 1,
        "columns": COLUMNS,
        "sources": SOURCES,
        "unknown": UNKNOWN,
        "table": [cells(row) for row in result["rows"]],
        "findings": _by_subject(findings(result)),
        "gallery": [picture(hand) for hand in result["gallery"]],
        "hands_a_line": _hands_a_line(len(result["gallery"])),
        "layers": _layer_lines(before, after),
        "sides": (before, after),
        "full_arm": full_arm(result),
        "ledger": [
            (e["kind"], e["name"], [(k, _short(v)) for k, v in e["detail"].items()]) for e in arm["ledger"]
        ],
        "versions": [(name, _short(version)) for name, version in result["versions"].items()],
        "energy": _energy_lines(result),
        "frames_per_s": FRAMES_PER_S,
        "story": {"ms": STORY_MS, "mw": STORY_MW, "mj": STORY_MJ},
    }


def _by_subject(found: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings under their subjects, both in the order in which they came."""
    grouped: dict[str, list[Finding]] = {}
    for finding in found:
        grouped.setdefault(finding.subject, []).append(finding)
    return grouped


def _layer_lines(before: Side, after: Side) -> list[dict[str, Any]]:
    """One line a layer of either network, in order, with the full chain's weight format and reason."""
    sides: list[dict[str, Layer]] = [
        {layer["name"]: layer for layer in side.layers} for side in (before, after)
    ]
    names = list(dict.fromkeys([layer["name"] for side in (before, after) for layer in side.layers]))
    lines = []
    for name in names:
        old, new = sides[0].get(name), sides[1].get(name)
        shown = sides[1][name] if new else sides[0][name]
        lines.append({
            "name": name,
            "op": shown["op"],
            "cycles": [decimals(side[key], 0) if side else UNKNOWN
                       for side in (old, new) for key in ("cycles_referee", "cycles_simulated")],
            "format": new["weight_format"] if new else "removed",
            "sparse": new is not None and new["weight_format"] == "Sparse2_4",
            "note": new["note"] if new else "",
        })  # fmt: skip
    return lines


def _energy_lines(result: Result) -> list[tuple[str, ...]]:
    """A row's name, mJ, mW while active, mean mW at each frame rate, and the scale for the story's mW."""
    lines = []
    for row in result["rows"]:
        mean = [decimals(None if row["mj"] is None else row["mj"] * fps, 1) for fps in FRAMES_PER_S]
        scale = decimals(needed_scale(result, row), 2)
        lines.append(
            (f"{row['row']} {row['name']}", decimals(row["mj"], 3), decimals(active_mw(row), 0), *mean, scale)
        )
    return lines


def _hands_a_line(count: int) -> int:
    """How many pairs stand in a line of a wide screen, so that the last line is full where it can be."""
    return next((wide for wide in ((3, 2) if count <= 6 else (3, 4)) if count % wide == 0), 3)


def _short(value: object) -> str:
    """A ledger value as text: words as they are, anything else as compact JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
