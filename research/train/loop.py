"""The one loop: a stage from its start or from its newest checkpoint to its end, the same bits either way."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.data.stream import Stream, batches, own_batches
from research.spec import TAUGHT
from research.squeeze import Taught
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
) -> TrainState:
    """Trains `hyper.steps` steps from `start = (params, norm_stats)`; `first` is the stage's first step in the stream.

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
    if saved is None or saved < hyper.steps:
        compile_together(step_fn, hyper, frozen, state, stream(hyper.seed, first) if several() else None)
    metrics = first_only(lambda: Metrics(folder / "metrics.jsonl", saved or 0))
    at, pending, clock = saved or 0, [], time.monotonic()
    note = {"steps": hyper.steps}
    bar.to(at)
    try:
        while at < hyper.steps:
            if told := stop.told():
                raise interrupt(told)
            state, terms = step_fn(hyper, frozen, state, stream(hyper.seed, first + at))
            pending.append((at, terms))
            at += 1
            if at % LOOK_EVERY == 0 or at % save_every == 0 or at == hyper.steps:
                seen = _look(pending)
                speed = batch * len(pending) / max(time.monotonic() - clock, 1e-9)
                by_first(functools.partial(_add, metrics, {"step": at, **seen}))
                bar.to(at, f"loss {seen['loss']:.4f}  {speed:.0f} img/s")
                pending, clock = [], time.monotonic()
            if at % save_every == 0 or at == hyper.steps:
                _check_state(state, at)
            if at % save_every == 0 and at < hyper.steps:
                with held():
                    keeper.save(at, state, note)
    except KeyboardInterrupt:
        _look(pending)
        deleted = any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
        if not deleted and finite(whole(state)):  # deleted: between a donation and its result
            with held():
                keeper.save(int(state.step), state, note)
        raise
    finally:
        with held():
            if metrics is not None:
                metrics.close()
            keeper.close()
    return state


def _add(metrics: Metrics | None, row: Mapping[str, float]) -> None:
    if metrics is not None:
        metrics.add(row)


def _look(pending: Sequence[tuple[int, Mapping[str, jax.Array]]]) -> dict[str, float]:
    """Mean of every term since the last look. Raises NonFiniteLoss at the first bad step."""
    rows = [(step, {k: float(v) for k, v in terms.items()}) for step, terms in jax.device_get(pending)]
    for step, terms in rows:
        bad = {k: v for k, v in terms.items() if not math.isfinite(v)}
        if bad:
            names = ", ".join(f"{k}={v}" for k, v in bad.items())
            raise NonFiniteLoss(
                f"loss is not finite at step {step}: {names}; training stopped, the last good checkpoint is kept "
                "(a smaller optim.lr or optim.clip usually helps)"
            )
    return {k: sum(terms[k] for _, terms in rows) / len(rows) for k in rows[0][1]} if rows else {}


def _check_state(state: TrainState, at: int) -> None:
    for name, tree in state._asdict().items():
        if not finite(whole(tree)):
            raise NonFiniteLoss(
                f"{name} is not finite after step {at - 1}; training stopped, the last good checkpoint is kept"
            )


def finite(tree: Tree) -> bool:
    """Whether every number of a tree is finite."""
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(tree))
