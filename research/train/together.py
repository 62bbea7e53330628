"""An arm of several experiments at once: stages of one shape train as one population, all else as if each ran alone.

What lies on disk, checkpoints, metrics and outcomes, is what each would leave alone, so that a trial begun together
goes on alone and the other way round. Stages that come to differ (a cut of other widths) train one by one.
"""

from __future__ import annotations

import dataclasses as dc
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from research.data.stream import drawn
from research.spec import Experiment, split_floats
from research.train.arms import Arm
from research.train.dispatch import STEPS, is_accelerator
from research.train.fit import Outcome, Part, conclude, fit, has_outcome, part_of
from research.train.keeper import Keeper
from research.train.loop import Course, asked, feed, walk, worth_keeping
from research.train.mesh import data_mesh, place, replicated, split_batch
from research.train.population import population, stack, unstack
from research.train.progress import Bar, Reporter
from research.train.record import Metrics
from research.train.signals import held
from research.train.state import TrainState
from research.train.step import compiled_step, initial_state


class Trial(NamedTuple):
    """One of the experiments and the folder it works in."""

    exp: Experiment
    workdir: Path


def shape_of(exp: Experiment) -> Any:
    """What experiments must have in common to train together; None where its images are not drawn in the step.

    Left to each: seed, floats of optimiser and links, learning rates of stages.
    """
    if not drawn(exp.data):
        return None
    tracks = tuple(
        (name, dc.replace(track, stages=tuple(dc.replace(s, lr_start=0.0, lr_end=0.0) for s in track.stages)))
        for name, track in exp.tracks.items
    )
    optim, squeeze = split_floats(exp.optim)[0], split_floats(exp.squeeze)[0]
    return dc.replace(exp, seed=0, optim=optim, squeeze=squeeze, tracks=type(exp.tracks)(tracks))


def check_alike(exps: Sequence[Experiment]) -> None:
    """ValueError when experiments cannot train together."""
    shapes = {shape_of(exp) for exp in exps}
    if len(shapes) > 1 or None in shapes:
        raise ValueError("these experiments do not train together: they differ in more than seeds and floats")


def fit_together(trials: Sequence[Trial], arm: Arm, *, devices: int = 1, reporter: Reporter) -> None:
    """Trains an arm of every trial, or what is left of it; its outcomes are then read by `fit`. Errors as `fit`."""
    check_alike([trial.exp for trial in trials])
    for index, stage in enumerate(trials[0].exp.tracks[arm.track].stages):
        groups = dict[Any, list[tuple[Trial, Outcome, Part]]]()
        for trial in trials:
            exp, workdir = trial
            if not has_outcome(exp, arm, index, workdir):
                before = fit(exp, arm, workdir, devices=1, reporter=reporter, upto=index)
                part = part_of(exp, arm, index, before, workdir, data_mesh(1), reporter)
                groups.setdefault(part.program, []).append((trial, before, part))
        for members in groups.values():
            (exp, _), _, part = members[0]
            if len(members) == 1:
                fit(exp, arm, members[0][0].workdir, devices=1, reporter=reporter, upto=index + 1)
                continue
            title = f"{part.folder.name} x{len(members)}"
            with reporter.bar(title, stage.steps) as bar:
                states = run_parts(
                    [part for _, _, part in members], exp.data, exp.optim.batch, exp.save_every, devices, bar
                )
            for (trial, before, part), state in zip(members, states, strict=True):
                conclude(trial.exp, arm, index, part, before, state)


def run_parts(
    parts: Sequence[Part],
    data: Any,
    batch: int,
    save_every: int,
    devices: int,
    bar: Bar,
    scan: bool | None = None,
) -> list[TrainState]:
    """`run_stage` of parts of one program, together, and the state of each; those behind are caught up first.

    On an accelerator (`scan` says otherwise) they are one `population`, split over as many of the `devices` (0: all) as
    divide them; on a CPU, which no trial starves, they take turns at one compiled step, to the bits of `run_stage`.
    Errors as `run_stage`.
    """
    packed, end = (is_accelerator(data_mesh(1)) if scan is None else scan), parts[0].hyper.steps
    with ExitStack() as files:
        keepers = [Keeper(part.folder / "steps", data_mesh(1)) for part in parts]
        files.callback(_close, keepers)
        runners = [_begun(part, keeper, bar) for part, keeper in zip(parts, keepers, strict=True)]
        files.callback(_close, [runner.metrics for runner in runners])
        while (low := min(runner.at for runner in runners)) < end:
            members = [runner for runner in runners if runner.at == low]
            until = min((runner.at for runner in runners if runner.at > low), default=end)
            course = (_side_by_side if packed else _in_turn)(members, data, batch, devices, bar)
            bar.to(low)
            states = walk(course.walk, course.state, low, until, save_every)
            for runner, state in zip(members, course.apart(states), strict=True):
                runner.at, runner.state = until, state
    return [runner.state for runner in runners]


@dc.dataclass
class _Runner:
    """A part on its way."""

    part: Part
    keeper: Keeper
    metrics: Metrics
    at: int
    state: TrainState

    def save(self, at: int, state: TrainState) -> None:
        self.keeper.save(at, state, {"steps": self.part.hyper.steps})

    def rescue(self, state: TrainState) -> None:
        if worth_keeping(state):
            self.save(int(state.step), state)


class _Way(NamedTuple):
    """How some runners go on together, from which common state, and how that is taken apart again."""

    walk: Course
    state: Any
    apart: Callable[[Any], list[TrainState]]


def _begun(part: Part, keeper: Keeper, bar: Bar) -> _Runner:
    fresh = initial_state(part.program, part.hyper, *part.start)
    at, state = keeper.restore(fresh, bar.reporter.say) or (0, fresh)
    return _Runner(part, keeper, Metrics(part.folder / "metrics.jsonl", at), at, state)


def _side_by_side(runners: Sequence[_Runner], data: Any, batch: int, devices: int, bar: Bar) -> _Way:
    """All in one program, `STEPS` steps a dispatch."""
    mesh = data_mesh(math.gcd(len(runners), devices or jax.device_count()))
    trees = [(runner.part.hyper, runner.part.frozen, runner.state) for runner in runners]
    hyper, frozen, state = place(stack(trees), split_batch(mesh))
    one_seed = len({runner.part.hyper.seed for runner in runners}) == 1
    part = runners[0].part
    make = functools.partial(population, part.program, mesh, data, batch, one_seed=one_seed, scan=True)

    def apart(states: TrainState) -> list[TrainState]:
        return [place(each, replicated(data_mesh(1))) for each in unstack(states)]

    def save(at: int, states: TrainState) -> None:
        for runner, each in zip(runners, apart(states), strict=True):
            runner.save(at, each)

    def rescue(states: TrainState) -> None:
        if worth_keeping(states):
            save(int(np.ravel(states.step)[0]), states)

    def advance(states: TrainState, at: int, count: int) -> tuple[TrainState, Mapping[str, Any]]:
        found: tuple[TrainState, dict[str, jax.Array]] = make(count)(hyper, frozen, states, part.first)
        return found

    return _Way(_course(runners, advance, STEPS, save, rescue, batch, bar), state, apart)


def _in_turn(runners: Sequence[_Runner], data: Any, batch: int, devices: int, bar: Bar) -> _Way:
    """Each takes the step that all share, then the next one. The list of their states is changed in place."""
    mesh, part = data_mesh(1), runners[0].part
    step, draw = compiled_step(part.program, mesh), asked(part.program, feed(data, batch, mesh))
    frozen = [place(runner.part.frozen, replicated(mesh)) for runner in runners]

    def advance(states: list[TrainState], at: int, count: int) -> tuple[Any, Mapping[str, Any]]:
        seen = []
        images = functools.cache(lambda seed: draw(seed, part.first + at))
        for i, runner in enumerate(runners):
            hyper = runner.part.hyper
            states[i], terms = step(hyper, frozen[i], states[i], images(hyper.seed))
            seen.append(terms)
        return states, {name: [[terms[name]] for terms in seen] for name in seen[0]}

    def save(at: int, states: list[TrainState]) -> None:
        for runner, state in zip(runners, states, strict=True):
            runner.save(at, state)

    def rescue(states: list[TrainState]) -> None:
        for runner, state in zip(runners, states, strict=True):
            runner.rescue(state)

    states = [place(runner.state, replicated(mesh)) for runner in runners]
    return _Way(_course(runners, advance, 1, save, rescue, batch, bar), states, list)


def _course(
    runners: Sequence[_Runner],
    advance: Callable[[Any, int, int], tuple[Any, Mapping[str, Any]]],
    most: int,
    save: Callable[[int, Any], None],
    rescue: Callable[[Any], None],
    batch: int,
    bar: Bar,
) -> Course:
    def tell(row: Mapping[str, Any]) -> None:
        for i, runner in enumerate(runners):
            own = {name: float(value[i]) for name, value in row.items() if name != "step"}
            runner.metrics.add({"step": row["step"]} | own)

    def show(row: Mapping[str, Any], steps_a_s: float) -> None:
        speed = len(runners) * batch * steps_a_s
        bar.to(int(row["step"]), f"loss {np.mean(row['loss']):.4f}  {speed:.0f} img/s")

    return Course(advance, most, lambda: 0, tell, save, rescue, show)


def _close(opened: Sequence[Keeper] | Sequence[Metrics]) -> None:
    with held():
        for each in opened:
            each.close()
