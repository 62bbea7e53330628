"""The one loop: a stage from its start or from its newest checkpoint to its end, the same bits either way."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.data.synthetic import batch_at
from research.train import checkpoint
from research.train.mesh import check_batch, place, replicated, split_batch
from research.train.progress import Bar
from research.train.record import Metrics
from research.train.signals import held
from research.train.state import Hyper, Program, TrainState
from research.train.step import compiled_step, initial_state

Tree = Any
LOOK_EVERY = 25


class NonFiniteLoss(ValueError):
    """A loss term, or a number of the state, became NaN or infinite."""


@functools.lru_cache(maxsize=16)
def batches(data: Any, batch: int) -> Callable[[int, int], dict[str, jax.Array]]:
    """The jitted stream of a data spec: `(seed, step) -> {"image", "keypoints"}`, one compile each."""
    return jax.jit(lambda seed, step: batch_at(data, seed, step, batch))


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
    interrupt goes on. Raises NonFiniteLoss naming the step and the terms; the last good checkpoint stays.
    """
    check_batch(mesh, batch)
    step_fn, stream = compiled_step(program, mesh), batches(data, batch)
    manager = checkpoint.open_manager(folder / "steps")
    state = initial_state(program, hyper, *start)
    found = checkpoint.restore_latest_good(manager, state, replicated(mesh), bar.reporter.say)
    saved, state = found or (None, state)
    state, frozen = place(state, replicated(mesh)), place(frozen, replicated(mesh))
    metrics = Metrics(folder / "metrics.jsonl", saved or 0)
    at, pending, clock = saved or 0, [], time.monotonic()
    note = {"steps": hyper.steps}
    bar.to(at)
    try:
        while at < hyper.steps:
            images = place(stream(hyper.seed, first + at), split_batch(mesh))
            state, terms = step_fn(hyper, frozen, state, images)
            pending.append((at, terms))
            at += 1
            if at % LOOK_EVERY == 0 or at % save_every == 0 or at == hyper.steps:
                seen = _look(pending)
                speed = batch * len(pending) / max(time.monotonic() - clock, 1e-9)
                metrics.add({"step": at, **seen})
                bar.to(at, f"loss {seen['loss']:.4f}  {speed:.0f} img/s")
                pending, clock = [], time.monotonic()
            if at % save_every == 0 or at == hyper.steps:
                _check_state(state, at)
            if at % save_every == 0 and at < hyper.steps:
                with held():
                    checkpoint.save(manager, at, state, note)
    except KeyboardInterrupt:
        _look(pending)
        deleted = any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
        if not deleted and finite(state):  # deleted: between a donation and its result
            with held():
                checkpoint.save(manager, int(state.step), state, note)
        raise
    finally:
        with held():
            metrics.close()
            manager.wait_until_finished()
            manager.close()
    return state


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
        if not finite(tree):
            raise NonFiniteLoss(
                f"{name} is not finite after step {at - 1}; training stopped, the last good checkpoint is kept"
            )


def finite(tree: Tree) -> bool:
    """Whether every number of a tree is finite."""
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(tree))
