"""How a sweep stands: what is known of every trial, kept in memory by the driver so that the store is read once."""

import dataclasses as dc
import time

from launch.board import View, eta_s
from launch.drive import state_of
from launch.job import Job, overrides
from launch.plan import Point
from launch.store import Store
from launch.table import feasible, front, metrics_of, write_table
from launch.trial import folder_of


class Tally:
    """States ("waiting", "running", "done", "failed (CODE)"), points and metrics by trial number."""

    def __init__(self, job: Job) -> None:
        """Knows nothing yet; the clock for the estimate starts."""
        self.job, self.states = job, dict[int, str]()
        self.points, self.metrics = dict[int, Point](), dict[int, dict[str, float]]()
        self._begin, self._ended = time.monotonic(), 0

    def take(self, store: Store, number: int, point: Point) -> None:
        """A trial as the store has it."""
        self.points[number] = point
        self._state(store, number, state_of(store, number))

    def hear(self, store: Store, number: int, what: str) -> None:
        """News of the driver: "started", "done", "retry (CODE)" or "failed (CODE)"."""
        self._ended += what == "done" or what.startswith("failed")
        state = "waiting" if what.startswith("retry") else what
        self._state(store, number, "running" if what == "started" else state)

    def _state(self, store: Store, number: int, state: str) -> None:
        self.states[number] = state
        if state == "done":
            self.metrics[number] = metrics_of(store.read(f"{folder_of(number)}/result.json") or {})

    @property
    def failed(self) -> int:
        """How many trials were given up."""
        return sum(state.startswith("failed") for state in self.states.values())

    def results(self) -> list[tuple[int, Point, dict[str, float]]]:
        """Number, point and metrics of every trial that was not left out; a failed one has no metrics."""
        return [(number, self.points[number], self.metrics.get(number, {})) for number in sorted(self.points)]

    def write(self, store: Store, drawn: bool = True) -> None:
        """trials.csv and the Pareto front, as things stand; what runs is "waiting" in it."""
        states = {n: "waiting" if what == "running" else what for n, what in self.states.items()}
        job = self.job
        write_table(store, states, self.points, self.metrics, job.objectives, job.constraints, drawn)

    def title(self, number: int) -> str:
        """A trial's point as words."""
        return " ".join(overrides(self.points[number]))

    def view(self) -> View:
        """The sweep as it is now."""
        best = {}
        for name, direction in self.job.objectives.items():
            pick = min if direction == "min" else max
            fits = {n: x for n, x in self.metrics.items() if feasible(x, self.job.constraints)}
            found = [(x[name], number) for number, x in sorted(fits.items()) if name in x]
            if found:
                best[name] = pick(found, key=lambda pair: pair[0])
        view = View(
            total=self.job.size,
            done=len(self.metrics),
            failed=self.failed,
            running=tuple(number for number, state in self.states.items() if state == "running"),
            best=best,
            pareto=len(front(self.metrics, self.job.objectives, self.job.constraints))
            if len(best) > 1
            else 0,
        )
        return dc.replace(view, eta_s=eta_s(view, self._ended, time.monotonic() - self._begin))
