"""Modelled power of a row, and what the story says about it. Nothing here is measured."""

from research.report.schema import Number, Result, Row

STORY_MS, STORY_MW = (12.0, 8.0), (180.0, 120.0)
STORY_MJ = tuple(ms * mw / 1e3 for ms, mw in zip(STORY_MS, STORY_MW, strict=True))


def active_mw(row: Row) -> Number:
    """Modelled power in mW while the network runs.

    Energy is modelled from simulated time and bytes, so it is divided by the simulated milliseconds; by the
    referee's only where there are none.
    """
    ms = row["ms_simulated"] if row["ms_simulated"] is not None else row["ms_referee"]
    return None if row["mj"] is None or not ms else 1e3 * row["mj"] / ms


def needed_scale(result: Result, row: Row, goal_mw: float = STORY_MW[1]) -> Number:
    """The energy scale at which `row` would draw `goal_mw` while active.

    Power is p_static + scale * switching power; None where the static power alone is above the goal.
    """
    power, scale, static = active_mw(row), result["energy"]["scale"], result["energy"]["p_static_mw"]
    if power is None or scale is None or static is None or power <= static or goal_mw <= static:
        return None
    return scale * (goal_mw - static) / (power - static)
