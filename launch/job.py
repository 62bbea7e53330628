"""What is swept: a config and the points its `sweep()` gives, generation by generation, as the store holds them."""

import dataclasses as dc
from pathlib import Path
from typing import Any

from launch.plan import Point, Sweep, plan
from launch.store import Store
from launch.trial import folder_of
from research import spec

HELD = "sweep.json"


@dc.dataclass(frozen=True)
class Job:
    """The config as it was named, its sweep function's name and what that gave, and whether trials are shrunk."""

    config: str
    name: str
    sweep: Sweep | tuple[Point, ...]
    smoke: bool = False

    @property
    def size(self) -> int:
        """How many trials there are."""
        return self.sweep.trials if isinstance(self.sweep, Sweep) else len(self.sweep)

    @property
    def max_failures(self) -> int:
        """Faults of its own after which a trial is given up."""
        return self.sweep.max_failures if isinstance(self.sweep, Sweep) else Sweep.max_failures

    @property
    def objectives(self) -> dict[str, str]:
        """Metric to "min" or "max"; a list of points has none."""
        return dict(self.sweep.objectives) if isinstance(self.sweep, Sweep) else {}

    @property
    def constraints(self) -> dict[str, float]:
        """Metric to its upper bound."""
        return dict(self.sweep.constraints) if isinstance(self.sweep, Sweep) else {}

    def generations(self) -> list[range]:
        """The numbers of the trials of each generation; a list of points is one."""
        step = self.sweep.generation if isinstance(self.sweep, Sweep) else self.size
        return [range(first, min(first + step, self.size)) for first in range(0, self.size, step)]

    def identity(self) -> dict[str, Any]:
        """What tells a store of this sweep from one of another, in JSON."""
        points = self.sweep
        said = repr(points) if isinstance(points, Sweep) else [overrides(point) for point in points]
        return {"config": Path(self.config).name, "smoke": self.smoke, "sweep": said}


def job_of(config: str, name: str = "sweep", smoke: bool = False, trials: int | None = None) -> Job:
    """The sweep that the function `name` of a config file describes, with another number of `trials` if asked.

    Raises ValueError if there is no such function or no point, and what `spec.load` raises for a point that
    does not fit the config: a typo is found before the first trial.
    """
    function = getattr(spec.config_module(Path(config)), name, None)
    if not callable(function):
        raise ValueError(f"{config} has no {name}(); write one that yields {{'dotted.field': value}}")
    found = function()
    sweep = found if isinstance(found, Sweep) else tuple(found)
    if isinstance(sweep, Sweep) and trials is not None:
        sweep = dc.replace(sweep, trials=trials)
    job = Job(config, name, sweep if isinstance(sweep, Sweep) else sweep[:trials], smoke)
    if job.size < 1:
        raise ValueError(f"{name}() of {config} yields no point")
    for point in plan(sweep, 0, []) if isinstance(sweep, Sweep) else sweep:
        spec.load(config, overrides(point))
    return job


def overrides(point: Point) -> list[str]:
    """A point as the words of a command line, `field=literal`."""
    return [f"{field}={value!r}" for field, value in point.items()]


def claim(store: Store, job: Job) -> None:
    """Makes `store` this sweep's. ValueError if it is another's."""
    held = store.read(HELD)
    if held and held["identity"] != job.identity():
        raise ValueError(f"{store.url} holds another sweep (see its {HELD}); choose another --store")
    if not held:
        what = {"config": job.config, "name": job.name, "smoke": job.smoke, "trials": job.size}
        store.write(HELD, what | {"identity": job.identity()})


def held_job(store: Store) -> Job:
    """The sweep a store holds. ValueError if it holds none, and what `job_of` raises."""
    held = store.read(HELD)
    if not held:
        raise ValueError(f"{store.url} holds no sweep")
    return job_of(held["config"], held["name"], held["smoke"], held["trials"])


def write_spec(store: Store, job: Job, number: int, point: Point) -> None:
    """What trial `number` is to do, as its spec.json."""
    name = f"{folder_of(number)}/spec.json"
    if not store.read(name):
        what = {"number": number, "config": job.config, "overrides": overrides(point), "smoke": job.smoke}
        store.write(name, what | {"point": point})
