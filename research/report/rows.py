"""From measured networks to the rows of the table: what each technique was worth, and against what."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from research.spec import Experiment
from research.train.arms import Arm, cumulative, full, row_order, without

Measured = Mapping[str, Any]


def rows(exp: Experiment, measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """Row -1 is the baseline on the old chip, row 0 the same network on the new one, then capacity, then each link.

    `measured` is `{arm name: what train.measure.measure returned}`. `step_x` and `cumulative_x` are ratios of referee
    milliseconds: to the row before, and to row 0. Leave-one-out compares the full chain with the chain without a link.
    """
    old, new = exp.old_chip.name, exp.new_chip.name
    before = _row(
        -1, f"{exp.baseline} as it was", "-", "-", Arm(exp.baseline), old, measured, "12 ms, 180 mW"
    )
    zero = _row(0, "new NPU, same network", "npu", before["name"], Arm(exp.baseline), new, measured, "-")
    arms = cumulative(exp)
    out = [
        before,
        zero,
        _row(1, "larger network", "capacity", zero["name"], arms[0], new, measured, "2x capacity"),
    ]
    for number, (link, arm) in enumerate(zip(row_order(exp), arms[1:], strict=True), 2):
        claim = exp.claims[link] if link in exp.claims.names else "-"
        row = _row(number, f"+ {link}", link, out[-1]["name"], arm, new, measured, claim)
        whole, less = measured[full(exp).name], measured[without(exp, link).name]
        row["leave_one_out_x"] = less["chips"][new]["ms_referee"] / whole["chips"][new]["ms_referee"]
        row["leave_one_out_error_px"] = less["int8"]["error_px"] - whole["int8"]["error_px"]
        out.append(row)
    for last, row in itertools.pairwise(out):
        row["step_x"] = last["ms_referee"] / row["ms_referee"]
    for row in out[1:]:
        row["cumulative_x"] = zero["ms_referee"] / row["ms_referee"]
    return out


def _row(
    number: int,
    name: str,
    technique: str,
    baseline: str,
    arm: Arm,
    chip: str,
    measured: Mapping[str, Measured],
    claim: str,
) -> dict[str, Any]:
    found = measured[arm.name]
    on_chip = found["chips"][chip]
    return {
        "row": number,
        "name": name,
        "technique": technique,
        "baseline": baseline,
        "arm": arm.name,
        "chip": chip,
        "ms_simulated": on_chip["ms_simulated"],
        "ms_referee": on_chip["ms_referee"],
        "step_x": None,
        "cumulative_x": None,
        "leave_one_out_x": None,
        "leave_one_out_error_px": None,
        "mj": on_chip["mj"],
        "kb_encoded": on_chip["kb_encoded"],
        "sram_kb": on_chip["sram_kb"],
        "macs": on_chip["macs"],
        "params": found["params"],
        "error_px_float": found["float"]["error_px"],
        "error_px_int8": found["int8"]["error_px"],
        "error_box_int8": found["int8"]["error_box"],
        "claim": claim,
    }
