"""A sweep's next points: a pure function of the sweep and of the results of earlier generations.

Optuna (extra `sweep`) only suggests: its study is in memory, built anew from the results, and asked from one seed. So
any driver, after any crash, on any machine, plans the same generation. Grid, random and qmc need no Optuna.
"""

import dataclasses as dc
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from launch.space import Choice, Domain, Float, Int, grid_of

__all__ = ["Choice", "Float", "Int", "Point", "Results", "Sweep", "plan"]

Point = Mapping[str, Any]
Results = Iterable[tuple[int, Point, Mapping[str, float]]]  # number, point and metrics of trials
SAMPLERS = ("grid", "random", "qmc", "tpe", "nsga2")
LEARNING = ("tpe", "nsga2")
TRIES = 16  # for a point that was not run before
_BRED = "NSGAIISampler:generation"  # where Optuna keeps which generation a trial was of


@dc.dataclass(frozen=True)
class Sweep:
    """What to vary, what to want, and how to go about it.

    space: {dotted field of the config: domain}. objectives: {metric: "min" or "max"}, metrics being the numbers in the
    last row of a trial's table. constraints: {metric: upper bound}. trials: how many, all told (0: a whole grid).
    generation: how many are planned at once, at least twice the trials that run side by side. max_failures: how often
    a trial may fail of its own before it is given up. population: how many of one shape share a process and program.
    """

    space: Mapping[str, Domain]
    objectives: Mapping[str, str]
    trials: int
    constraints: Mapping[str, float] = dc.field(default_factory=dict)
    sampler: str = "random"
    generation: int = 8
    seed: int = 0
    max_failures: int = 3
    population: int = dc.field(default=1, repr=False)  # how it is run, not what is run

    def __post_init__(self) -> None:
        """ValueError, naming the field, for what cannot be swept."""
        if not self.space:
            raise ValueError("a sweep's space has no field")
        for field, domain in self.space.items():
            if not isinstance(domain, Float | Int | Choice):
                raise ValueError(f"space[{field!r}] must be Float, Int or Choice, got {domain!r}")
        for metric, direction in self.objectives.items():
            if direction not in ("min", "max"):
                raise ValueError(f"objectives[{metric!r}] must be 'min' or 'max', got {direction!r}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}")
        if self.sampler in LEARNING and not self.objectives:
            raise ValueError(f"the sampler {self.sampler!r} needs objectives to learn from")
        if min(self.generation, self.max_failures, self.population) < 1:
            raise ValueError("generation, max_failures and population must be at least 1")
        whole = (
            math.prod(len(grid_of(domain)) for domain in self.space.values()) if self.sampler == "grid" else 0
        )
        if self.sampler == "grid" and self.trials == 0:
            object.__setattr__(self, "trials", whole)
        if self.trials < 1 or (whole and self.trials > whole):
            least = f"the grid has {whole} points" if whole else "a sweep needs at least 1"
            raise ValueError(f"trials is {self.trials}, but {least}")


def plan(sweep: Sweep, generation: int, results: Results) -> list[Point]:
    """The points of a generation, counted from 0.

    results: what is known of the trials, in any order; those of this generation and later ones are not looked at. A
    metric that is lacking or not finite counts as bad as can be, so a failed trial is one without metrics. Raises
    ValueError for a generation that the sweep does not have, and for tpe and nsga2 without Optuna.
    """
    first = generation * sweep.generation
    count = min(sweep.generation, sweep.trials - first)
    if generation < 0 or count < 1:
        raise ValueError(f"generation {generation} lies behind the {sweep.trials} trials of the sweep")
    if sweep.sampler == "grid":
        names = list(sweep.space)
        rows = itertools.product(*(grid_of(sweep.space[name]) for name in names))
        return [dict(zip(names, row, strict=True)) for row in itertools.islice(rows, first, first + count)]
    if sweep.sampler == "random":
        return [
            _drawn(sweep, np.random.default_rng((sweep.seed, number)))
            for number in range(first, first + count)
        ]
    if sweep.sampler == "qmc":
        return _spread(sweep, first, count)
    earlier = sorted((known for known in results if known[0] < first), key=lambda known: known[0])
    return _suggested(sweep, generation, count, earlier)


def _drawn(sweep: Sweep, rng: np.random.Generator) -> Point:
    """Every field at a random place of its own."""
    return {name: domain.at(float(rng.random())) for name, domain in sweep.space.items()}


def _spread(sweep: Sweep, first: int, count: int) -> list[Point]:
    """The points `first ...` of a scrambled Sobol sequence (Owen, 1995; scipy)."""
    from scipy.stats import qmc  # slow to import

    sobol = qmc.Sobol(len(sweep.space), scramble=True, rng=np.random.default_rng(sweep.seed))
    shares = sobol.random(2 ** math.ceil(math.log2(first + count)))[first : first + count]
    fields = list(sweep.space.items())
    return [
        {name: domain.at(float(share)) for (name, domain), share in zip(fields, row, strict=True)}
        for row in shares
    ]


def _suggested(sweep: Sweep, generation: int, count: int, results: Results) -> list[Point]:
    """What Optuna's sampler asks for, knowing the results.

    It may ask for a point twice, most of all NSGA-II; a trial gives the same again, so it is asked for another, then a
    random one is taken, and only a space without a new point repeats one.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise ValueError(f"the sampler {sweep.sampler!r} needs Optuna: pip install '.[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    domains = {name: _distribution(domain) for name, domain in sweep.space.items()}
    seed = int(np.random.SeedSequence((sweep.seed, generation)).generate_state(1)[0])
    sampler: Any = (
        optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, sweep.generation), multivariate=True)
        if sweep.sampler == "tpe"
        else optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, sweep.generation))
    )
    study = optuna.create_study(
        directions=["minimize" if way == "min" else "maximize" for way in sweep.objectives.values()],
        sampler=sampler,
    )
    for number, point, metrics in results:
        values, over = _judged(sweep, metrics)
        study.add_trial(
            optuna.trial.create_trial(
                params={name: _key(sweep.space[name], point[name]) for name in domains},
                distributions=domains,
                values=values,
                constraints=over,
                system_attrs={_BRED: number // sweep.generation},
            )
        )
    seen, points = {repr({name: point[name] for name in domains}) for _, point, _ in results}, list[Point]()
    for number in range(generation * sweep.generation, generation * sweep.generation + count):
        asked = (_point(sweep, study.ask(domains).params) for _ in range(TRIES))
        drawn = (_drawn(sweep, np.random.default_rng((sweep.seed, number, again))) for again in range(TRIES))
        fresh = (point for point in itertools.chain(asked, drawn) if repr(point) not in seen)
        points.append(next(fresh, _drawn(sweep, np.random.default_rng((sweep.seed, number)))))
        seen.add(repr(points[-1]))
    return points


def _point(sweep: Sweep, keys: Mapping[str, Any]) -> Point:
    """The point that Optuna's parameters mean, its fields in the order of the space."""
    return {name: _value(domain, keys[name]) for name, domain in sweep.space.items()}


def _judged(sweep: Sweep, metrics: Mapping[str, float]) -> tuple[list[float], dict[str, float]]:
    """Values of the objectives, and by how much each constraint is broken (<= 0: kept)."""
    worst = 1e30

    def number(name: str, otherwise: float) -> float:
        found = metrics.get(name, otherwise)
        return float(found) if math.isfinite(found) else otherwise

    values = [number(name, worst if way == "min" else -worst) for name, way in sweep.objectives.items()]
    return values, {name: number(name, worst) - bound for name, bound in sweep.constraints.items()}


def _distribution(domain: Domain) -> Any:
    """A domain in Optuna's words; a choice is known by its place, so that any value will do."""
    from optuna import distributions

    if isinstance(domain, Float):
        return distributions.FloatDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Int):
        return distributions.IntDistribution(domain.low, domain.high)
    return distributions.CategoricalDistribution(list(range(len(domain.values))))


def _key(domain: Domain, value: Any) -> Any:
    """A point's value as Optuna knows it."""
    return [repr(v) for v in domain.values].index(repr(value)) if isinstance(domain, Choice) else value


def _value(domain: Domain, key: Any) -> Any:
    """The other way round."""
    return domain.values[key] if isinstance(domain, Choice) else key
