"""What squeezing did, in plain words and against the story's claims; every sentence is computed.

The story: a hand tracker V1 (12 ms, 180 mW) becomes V2 (8 ms, 120 mW). Its claims are written in `claim` of
each row as "1.5x, -0.5 %": a speed-up and a relative change of accuracy, read here as the relative change of
the error with its sign turned. A speed-up is the same each time a given network is compiled, so it is judged
by the referee's number; accuracy of one training is not, so with fewer than 3 seeds a difference below the
spread between seeds stays open.
"""

import math
import re
import statistics
from dataclasses import dataclass

from research.report.chain import baseline_ms, before_and_after, row_zero, techniques
from research.report.power import STORY_MJ, STORY_MS, STORY_MW, active_mw, needed_scale
from research.report.schema import Number, Result, Row
from research.report.tables import decimals

SPEED_TOLERANCE = 0.02  # a speed-up 2 % below the claim still counts as reached
SEED_SPREAD_PERCENT = 10.0  # dense trainings of such networks differ by about this much between seeds
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Finding:
    """One sentence; `verdict` is "reached", "refuted", "open" (these runs cannot tell) or "fact"."""

    verdict: str
    subject: str
    text: str


@dataclass(frozen=True)
class Claim:
    """The story's numbers for one technique; None where it names none."""

    speed_x: Number = None
    accuracy_percent: Number = None
    capacity_x: Number = None


def parse_claim(text: str) -> Claim:
    """Reads "1.5x, -0.5 %", "+3 %", "1.15x", "2x capacity" or "-"; anything else claims nothing."""
    speed = re.search(r"(\d+(?:\.\d+)?)\s*[x×]\s*(?:,|$)", text)
    capacity = re.search(r"(\d+(?:\.\d+)?)\s*[x×]\s*capacity", text)
    accuracy = re.search(r"([+\-−]?\d+(?:\.\d+)?)\s*%", text)
    return Claim(
        speed_x=float(speed.group(1)) if speed else None,
        accuracy_percent=float(accuracy.group(1).replace("−", "-")) if accuracy else None,
        capacity_x=float(capacity.group(1)) if capacity else None,
    )


def findings(result: Result) -> tuple[Finding, ...]:
    """The summary: the whole way, each technique against its claim, int8, 2:4, energy, simulation."""
    found = [*_whole(result)]
    for row in techniques(result):
        found += [*_capacity(result, row), *_speed(result, row), *_accuracy(result, row)]
    for part in (_int8(result), _sparse(result), _energy(result), _agreement(result)):
        found += [part] if part else []
    return tuple(found)


def _whole(result: Result) -> list[Finding]:
    zero, last, found = row_zero(result), result["rows"][-1], []
    start, same, end = baseline_ms(zero), zero["ms_referee"], last["ms_referee"]
    if start and same and end:
        goal = STORY_MS[0] / STORY_MS[1]
        verdict = _verdict(start / end, goal)
        text = (
            f"From {start:.3f} ms (“{zero['baseline']}”) to {end:.3f} ms a frame is {start / end:.2f}x, "
            f"claimed {goal:g}x ({STORY_MS[0]:g} to {STORY_MS[1]:g} ms): {verdict}{_once(result)}. "
            f"The new NPU alone, running the same network, brings {start / same:.2f}x of it; "
            f"everything after that {same / end:.2f}x."
        )
        found.append(Finding(verdict, "The whole way", text))
    claimed = [row for row in techniques(result) if parse_claim(row["claim"]).speed_x is not None]
    before = baseline_ms(claimed[0]) if claimed else None
    if before and end:
        product = math.prod(parse_claim(row["claim"]).speed_x or 1.0 for row in claimed)
        verdict = _verdict(before / end, product)
        text = (
            f"The story's speed-ups for the techniques in this table multiply to {product:.2f}x; from "
            f"“{claimed[0]['baseline']}” to the last row the referee finds {before / end:.2f}x: "
            f"{verdict}{_once(result)}."
        )
        found.append(Finding(verdict, "All techniques", text))
    return found


def _capacity(result: Result, row: Row) -> list[Finding]:
    goal, zero = parse_claim(row["claim"]).capacity_x, row_zero(result)
    if goal is None or not row["params"] or not zero["params"]:
        return []
    ratio = row["params"] / zero["params"]
    macs = f" and {row['macs'] / zero['macs']:.2f}x its MACs" if row["macs"] and zero["macs"] else ""
    verdict = _verdict(ratio, goal)
    text = (
        f"Capacity: {ratio:.2f}x the parameters of row 0{macs}, claimed {goal:g}x: {verdict}{_once(result)}."
    )
    return [Finding(verdict, row["name"], text)]


def _speed(result: Result, row: Row) -> list[Finding]:
    step, goal = row["step_x"], parse_claim(row["claim"]).speed_x
    if step is None:
        return []
    text = f"Speed: {step:.2f}x over “{row['baseline']}”"
    if row["leave_one_out_x"] is not None:
        text += f" (taken out of the full chain: {row['leave_one_out_x']:.2f}x)"
    if goal is None:
        return [Finding("fact", row["name"], f"{text}; the story names no speed-up.")]
    verdict = _verdict(step, goal)
    return [Finding(verdict, row["name"], f"{text}, claimed {goal:g}x: {verdict}{_once(result)}.")]


def _accuracy(result: Result, row: Row) -> list[Finding]:
    change, goal = accuracy_change_percent(result, row), parse_claim(row["claim"]).accuracy_percent
    if change is None or goal is None:
        return []
    if result["n"] < ENOUGH_SEEDS and abs(change - goal) < SEED_SPREAD_PERCENT:
        verdict, word = "open", f"open, since seeds alone differ by about {SEED_SPREAD_PERCENT:g} %"
    else:
        verdict = "reached" if change >= goal else "refuted"
        word = verdict + _once(result)
    px = abs(row["leave_one_out_error_px"] or 0.0)
    moves, better = ("lowers", "better") if change >= 0 else ("raises", "worse")
    text = (
        f"Accuracy: it {moves} the full chain's error by {px:.2f} px ({abs(change):.1f} % {better}), "
        f"claimed {goal:+g} %: {word}."
    )
    return [Finding(verdict, row["name"], text)]


def accuracy_change_percent(result: Result, row: Row) -> Number:
    """The percentage of the error that a technique takes off the full chain; negative if it adds some.

    Compared are int8 errors: of the full chain (last row) and of the chain without the technique.
    """
    gained, full = row["leave_one_out_error_px"], result["rows"][-1]["error_px_int8"]
    if gained is None or full is None or full + gained <= 0:
        return None
    return 100.0 * gained / (full + gained)


def _int8(result: Result) -> Finding | None:
    last = result["rows"][-1]
    before, after = last["error_px_float"], last["error_px_int8"]
    if before is None or after is None:
        return None
    box = last["error_box_int8"]
    share = "" if box is None else f" ({100 * box:.1f} % of the hand's box)"
    text = f"The exported file errs by {after:.2f} px in LiteRT{share}; the float network by {before:.2f} px."
    return Finding("fact", "int8", text)


def _sparse(result: Result) -> Finding | None:
    after = before_and_after(result)[1].layers
    weighted = [layer for layer in after if layer["op"] in ("conv", "dense")]
    if not weighted:
        return None
    sparse = [layer for layer in weighted if layer["weight_format"] == "Sparse2_4"]
    text = (
        f"The referee itself stores {len(sparse)} of {len(weighted)} conv and dense layers as Sparse2_4; "
        "the others are listed below with the reason."
    )
    return Finding("fact", "2:4 layers", text)


def _energy(result: Result) -> Finding | None:
    last = result["rows"][-1]
    power = active_mw(last)
    if last["mj"] is None or power is None:
        return None
    goal = STORY_MW[1]
    verdict = "reached" if power <= goal else "refuted"
    text = (
        f"The model gives {last['mj']:.3f} mJ a frame (the story's V2: {STORY_MJ[1]:.2f} mJ) and "
        f"{power:.0f} mW while active, claimed {goal:g} mW: {verdict} by the model{_once(result)}."
    )
    need = needed_scale(result, last)
    if verdict == "refuted" and need is not None:
        scale = decimals(result["energy"]["scale"], 2)
        text += f" For {goal:g} mW the energy scale would have to be {need:.2f} instead of {scale}."
    return Finding(verdict, "Energy (modelled)", text)


def _agreement(result: Result) -> Finding | None:
    pairs = [(row["ms_simulated"], row["ms_referee"]) for row in result["rows"]]
    gaps = [abs(ours / theirs - 1) for ours, theirs in pairs if ours is not None and theirs]
    if not gaps:
        return None
    text = (
        f"Our simulated milliseconds differ from Arm's compiler by {100 * statistics.fmean(gaps):.1f} % on "
        f"average and {100 * max(gaps):.1f} % at most over {len(gaps)} rows. Neither is silicon."
    )
    return Finding("fact", "Simulation", text)


def _verdict(found_x: float, claimed_x: float) -> str:
    return "reached" if found_x >= claimed_x * (1 - SPEED_TOLERANCE) else "refuted"


def _once(result: Result) -> str:
    """The warning that a verdict rests on one training."""
    return " in this one run" if result["n"] == 1 else f" over {result['n']} seeds"
