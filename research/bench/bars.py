"""The bars that a faithful price of the NPU must clear, and what is said of a price that does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# {face: {chip: (MAPE %, Kendall tau)}}, the design's bars; "" is every other chip.
NETWORK_BARS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "plan": {
        "Ethos-U85-128": (2.0, 0.98),
        "Ethos-U85-512": (3.0, 0.98),
        "Ethos-U55-128": (4.0, 0.96),
        "": (4.0, 0.95),
    },
    "cost": {"Ethos-U85-128": (4.0, 0.96), "": (6.0, 0.95)},
}
LAYER_MEDIAN, LAYER_MEAN, DENSE_MEAN, SRAM_PERCENT = 1.0, 5.0, 10.0, 5.0
BLOCKS_SHARE, MACS_SHARE, SIGN_SHARE, SPEARMAN = 0.95, 1.0, 0.95, 0.9
SPEEDUP_GAP, ABLATION_PERCENT, KIND_SHARE = 0.05, 5.0, 0.1
LEAST_CHANGE = 0.002  # an edit that changes less is not counted for its sign

Held = list[tuple[str, float, str, float]]


def failures(chip: str, figures: Mapping[str, Any]) -> list[str]:
    """What falls short of the bars on one chip, one line each. `figures` as `fidelity.measure` gives them.

    Every face is held to its bars on networks and edits; layers, blocks, SRAM, the gain of 2:4 and the switches are
    the planner's, and the cost's as long as there is no planner.
    """
    found = [] if "plan" in figures["faces"] else [f"{chip}: there is no exact planner to judge"]
    for face, own in figures["faces"].items():
        mape, tau = NETWORK_BARS[face].get(chip, NETWORK_BARS[face][""])
        held: Held = [("MAPE %", own["mape_percent"], "<=", mape), ("Kendall tau", own["tau"], ">=", tau)]
        if "edits" in own:
            held.append(("sign of edits", own["edits"]["sign_share"], ">=", SIGN_SHARE))
            held.append(("Spearman of edits", own["edits"]["spearman"], ">=", SPEARMAN))
        held += _exact(own) if face == "plan" or "plan" not in figures["faces"] else []
        for name, value, sense, bar in held:
            if not (value <= bar if sense == "<=" else value >= bar):  # nan is a miss
                found.append(f"{chip} {face}: {name} {value:.4g}, wanted {sense} {bar:g}")
    return found


def _exact(own: Mapping[str, Any]) -> Held:
    held: Held = [
        ("SRAM peak error %", own["sram_error_percent"], "<=", SRAM_PERCENT),
        ("MAC formula exact", own["macs_exact_share"], ">=", MACS_SHARE),
        ("same blocks", own["blocks_share"], ">=", BLOCKS_SHARE),
    ]
    for kind, (_, median, mean) in own["layers"].items():
        if kind.startswith(("conv", "depthwise")):
            held += [
                (f"{kind} median %", median, "<=", LAYER_MEDIAN),
                (f"{kind} mean %", mean, "<=", LAYER_MEAN),
            ]
        if kind == "dense":
            held.append(("dense mean %", mean, "<=", DENSE_MEAN))
    if "speedup_within" in own:
        held.append((f"2:4 speed-up within {SPEEDUP_GAP}", own["speedup_within"], ">=", 1.0))
    for name, found in own["ablations"].items():
        held.append((f"{name} within {ABLATION_PERCENT:g} %", found["within_share"], ">=", 1.0))
        if found["expected"]:
            held.append((f"largest effect of {name}", found["largest_effect"], ">=", 1.05))
        else:
            held.append((f"effect of {name}, a no-op here", found["largest_effect"], "<=", 1.0))
    return held
