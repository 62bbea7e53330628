"""Chip-hours: what a slice has used up, kept in a file so that a restart of this program does not forget it."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Meter:
    """Chip-seconds used so far, since when (seconds of the wall clock) the slice is billed, and whether it is ours."""

    chips: int
    chip_seconds: float = 0.0
    since: float | None = None
    made: bool = False  # a request of ours may exist

    @property
    def chip_hours(self) -> float:
        """What the budget counts."""
        return self.chip_seconds / 3600

    def tick(self, billed: bool, now: float) -> "Meter":
        """The meter at time `now`, when the slice is seen to be billed or not.

        Time since the last look counts in full if the slice was billed then, so a lost sight of it is never free.
        """
        used = 0.0 if self.since is None else max(0.0, now - self.since) * self.chips
        return replace(self, chip_seconds=self.chip_seconds + used, since=now if billed else None)

    def seconds_left(self, budget_chip_hours: float) -> float:
        """How long the slice may still run under a budget."""
        return max(0.0, budget_chip_hours * 3600 - self.chip_seconds) / self.chips


def read_meter(path: Path, chips: int) -> Meter:
    """The meter in a file, or a new one. Raises ValueError if the file holds something else."""
    if not path.exists():
        return Meter(chips)
    try:
        held = json.loads(path.read_text())
        since = None if held["since"] is None else float(held["since"])
        meter = Meter(int(held["chips"]), float(held["chip_seconds"]), since, bool(held["made"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a chip-hour ledger; move it away to start a new one") from error
    if meter.made and meter.chips != chips:
        raise ValueError(
            f"{path} looks after {meter.chips} chips, not {chips}; end that one with --delete first"
        )
    return replace(meter, chips=chips)


def write_meter(path: Path, meter: Meter) -> None:
    """Replace the file by this meter, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    with half.open("w") as file:
        file.write(json.dumps(asdict(meter)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def estimate(chips: int, budget_chip_hours: float, predicted_hours: float | None) -> list[str]:
    """What a run may use, in lines. No prices: they change. Raises ValueError if the prediction is over the budget."""
    hours = budget_chip_hours / chips
    lines = [f"budget: {budget_chip_hours:g} chip-hours = {hours:.2f} h of {chips} chips, then it is deleted"]
    if predicted_hours is not None:
        wanted = predicted_hours * chips
        lines.append(f"predicted: {predicted_hours:g} h x {chips} chips = {wanted:g} chip-hours")
        if wanted > budget_chip_hours:
            raise ValueError(
                f"{lines[-1]}, over the budget of {budget_chip_hours:g}; raise --max-chip-hours or run less"
            )
    return [*lines, "not in it: setting up the workers, work lost to preemptions, storage, network"]
