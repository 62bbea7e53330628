"""The one loop: a stage from its start or from its newest checkpoint to its end, the same bits either way."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from research.data.stream import Stream, batches, drawn, own_batches
from research.spec import TAUGHT
from research.squeeze import Taught
from research.train.dispatch import STEPS, dispatch, is_accelerator
from research.train.hosts import Agreement, by_first, compile_together, first_only, several, whole
from research.train.keeper import Keeper
from research.train.mesh import check_batch, own_rows, place, place_rows, split_batch, split_wide
from research.train.progress import Bar
from research.train.record import Metrics
from research.train.signals import held, interrupt
from research.train.state import Hyper, Program, TrainState
from research.train.step import StepFn, compiled_step, initial_state

Tree = Any
LOOK_EVERY = 25


class NonFiniteLoss(ValueError):
    """A loss term, or a number of the state, became NaN or infinite."""


def feed(data: Any, batch: int, mesh: jax.sharding.Mesh) -> Stream:
    """`(seed, step) -> batch` on a mesh. Each process draws only the examples that its own devices train on."""
    if not several():
        stream = batches(data, batch)
        return lambda seed, step: place(stream(seed, step), split_batch(mesh))
    rows = own_rows(mesh, batch)
    own = own_batches(data, batch, tuple(rows.tolist()))
    return lambda seed, step: place_rows(own(seed, step), rows, mesh, batch)


def asked(program: Program, stream: Stream) -> Stream:
    """A stream without a teacher's features where no link reads them: such a step is that of any other data."""
    if any(isinstance(link, Taught) for _, link in program.links.items):
        return stream
    return lambda seed, step: {k: v for k, v in stream(seed, step).items() if not k.startswith(TAUGHT)}


def pinned(step_fn: StepFn, lies: Tree) -> StepFn:
    """A step whose next state lies where the one before it lay, which a compiler is free to change otherwise."""

    def step(
        hyper: Hyper, frozen: Tree, state: TrainState, batch: Mapping[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        state, terms = step_fn(hyper, frozen, state, batch)
        return jax.lax.with_sharding_constraint(state, lies), terms

    return jax.jit(step, donate_argnums=2)


class Course(NamedTuple):
    """How a stage is walked through, by one trial or, the state then a list or stacked, by several.

    `advance`: `(state, at, count)` to the state `count` steps on and their terms, which end with an axis of steps (or
    have none where there was one step); `most` steps it takes at once (else 1). `told`: the number of a signal. `tell`
    gets a row of means, `save` a state, `rescue` one at an interrupt, `show` a row and steps a second.
    """

    advance: Callable[[Any, int, int], tuple[Any, Mapping[str, Any]]]
    most: int
    told: Callable[[], int]
    tell: Callable[[Mapping[str, Any]], None]
    save: Callable[[int, Any], None]
    rescue: Callable[[Any], None]
    show: Callable[[Mapping[str, Any], float], None]


def walk(course: Course, state: Any, at: int, end: int, save_every: int) -> Any:
    """From step `at` to `end`, saving, looking and telling on the way; see `run_stage` for what it raises."""
    pending, clock = list[tuple[int, Mapping[str, Any]]](), time.monotonic()
    try:
        while at < end:
            if number := course.told():
                raise interrupt(number)
            room = min(LOOK_EVERY - at % LOOK_EVERY, save_every - at % save_every, end - at)
            count = course.most if room >= course.most else 1
            state, terms = course.advance(state, at, count)
            pending.append((at, terms))
            at += count
            if at % LOOK_EVERY == 0 or at % save_every == 0 or at == end:
                seen, steps = _look(pending)
                course.tell({"step": at, **seen})
                course.show({"step": at, **seen}, steps / max(time.monotonic() - clock, 1e-9))
                pending, clock = [], time.monotonic()
            if at % save_every == 0 or at == end:
                _check_state(state, at)
            if at % save_every == 0 and at < end:
                with held():
                    course.save(at, state)
    except KeyboardInterrupt:
        _look(pending)
        with held():
            course.rescue(state)
        raise
    return state


def worth_keeping(state: TrainState) -> bool:
    """Whether an interrupted state can be saved: it is finite, and not between a donation and its result."""
    return not any(leaf.is_deleted() for leaf in jax.tree.leaves(state)) and finite(whole(state))


def run_stage(
    program: Program,
    hyper: Hyper,
    start: tuple[Tree, Tree],
    frozen: Tree,
    *,
    data: Any,
    batch: int,
    first: int,
    folder: Path,
    save_every: int,
    mesh: jax.sharding.Mesh,
    bar: Bar,
    scan: bool | None = None,
) -> TrainState:
    """Trains `hyper.steps` steps from `start = (params, norm_stats)`; `first` is the stage's first step in the stream.

    On an accelerator (`scan` says otherwise) renders are drawn inside the step, `dispatch.STEPS` of them a dispatch.
    Checkpoints land in `folder/steps`, metrics in `folder/metrics.jsonl`. On Ctrl-C the state is saved before the
    interrupt goes on; with several processes a signal to one of them saves one step and interrupts all. Raises
    NonFiniteLoss naming the step and the terms; the last good checkpoint stays.
    """
    check_batch(mesh, batch)
    step_fn, stop = compiled_step(program, mesh), Agreement(mesh)
    stream = asked(program, feed(data, batch, mesh))
    keeper = Keeper(folder / "steps", mesh)
    state = initial_state(program, hyper, *start)
    saved, state = keeper.restore(state, bar.reporter.say) or (None, state)
    lies = split_wide(mesh, state)
    if "model" in mesh.axis_names:
        step_fn = pinned(step_fn, lies)
    state, frozen = place(state, lies), place(frozen, split_wide(mesh, frozen))
    packed = "model" not in mesh.axis_names and (is_accelerator(mesh) if scan is None else scan) and drawn(data)
    many = dispatch(program, mesh, data, batch, STEPS, scan=True) if packed else None
    if saved is None or saved < hyper.steps:
        compile_together(step_fn, hyper, frozen, state, stream(hyper.seed, first) if several() else None)
        if many is not None:
            compile_together(many, hyper, frozen, state, first)
    metrics = first_only(lambda: Metrics(folder / "metrics.jsonl", saved or 0))

    def advance(state: TrainState, at: int, count: int) -> tuple[TrainState, Mapping[str, Any]]:
        if many is not None and count > 1:
            return many(hyper, frozen, state, first)
        return step_fn(hyper, frozen, state, stream(hyper.seed, first + at))

    def save(at: int, state: TrainState) -> None:
        keeper.save(at, state, {"steps": hyper.steps})

    def rescue(state: TrainState) -> None:
        if worth_keeping(state):
            save(int(state.step), state)

    def show(row: Mapping[str, Any], steps_a_s: float) -> None:
        bar.to(int(row["step"]), f"loss {row['loss']:.4f}  {batch * steps_a_s:.0f} img/s")

    course = Course(
        advance=advance,
        most=STEPS if packed else 1,
        told=stop.told,
        tell=lambda row: by_first(functools.partial(_add, metrics, row)),
        save=save,
        rescue=rescue,
        show=show,
    )
    bar.to(saved or 0)
    try:
        return walk(course, state, saved or 0, hyper.steps, save_every)
    finally:
        with held():
            if metrics is not None:
                metrics.close()
            keeper.close()


def _add(metrics: Metrics | None, row: Mapping[str, float]) -> None:
    if metrics is not None:
        metrics.add(row)


def _look(pending: Sequence[tuple[int, Mapping[str, Any]]]) -> tuple[dict[str, Any], int]:
    """Mean of every term since the last look, and over how many steps. Raises NonFiniteLoss at the first bad step."""
    rows = []
    for first, terms in jax.device_get(pending):
        found = {name: np.atleast_1d(term).astype(np.float64) for name, term in terms.items()}
        rows += [
            (first + i, {name: term[..., i] for name, term in found.items()})
            for i in range(found["loss"].shape[-1])
        ]
    for step, row in rows:
        bad = {k: v for k, v in row.items() if not np.isfinite(v).all()}
        if bad:
            names = ", ".join(f"{k}={v}" for k, v in bad.items())
            raise NonFiniteLoss(
                f"loss is not finite at step {step}: {names}; training stopped, the last good checkpoint is kept "
                "(a smaller optim.lr or optim.clip usually helps)"
            )
    if not rows:
        return {}, 0
    means = {k: sum(row[k] for _, row in rows) / len(rows) for k in rows[0][1]}
    return {k: float(v) if np.ndim(v) == 0 else v for k, v in means.items()}, len(rows)


def _check_state(state: Any, at: int) -> None:
    if isinstance(state, list):
        for each in state:
            _check_state(each, at)
        return
    for name, tree in state._asdict().items():
        if not finite(whole(tree)):
            raise NonFiniteLoss(
                f"{name} is not finite after step {at - 1}; training stopped, the last good checkpoint is kept"
            )


def finite(tree: Tree) -> bool:
    """Whether every number of a tree is finite."""
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(tree))
