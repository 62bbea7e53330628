"""K steps a dispatch: one scan that renders its images and trains on an accelerator, a plain loop on a CPU, equal.

A step of a small network is shorter than the time a host needs to start it: the chip would wait for the next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from research.data.synthetic import batch_at, examples_together
from research.train.mesh import check_batch, place, split_batch
from research.train.state import Hyper, Program, TrainState
from research.train.step import compiled_step, train_step

Tree = Any
Batch = Mapping[str, jax.Array]
Draw = Callable[[jax.Array | int, jax.Array | int], Batch]
Advance = Callable[[Hyper, Tree, TrainState, jax.Array | int], tuple[TrainState, dict[str, jax.Array]]]
"""`(hyper, frozen, state, first) -> (state K steps on, every term [K])`; `first` is the stage's first stream step."""

STEPS = 25
"""How many steps one dispatch holds on an accelerator (the loop looks at its losses as often)."""

_batch = jax.jit(batch_at, static_argnames=("spec", "batch"))


@functools.cache
def dispatch(
    program: Program, mesh: Mesh, data: Any, batch: int, steps: int, scan: bool | None = None
) -> Advance:
    """`steps` steps of a program on images of `data` that no host touches; the state is donated.

    `scan` says which way; None: as the mesh's devices run it fastest. ValueError for a batch that does not split.
    """
    check_batch(mesh, batch)
    if not (is_accelerator(mesh) if scan is None else scan):
        return looped(_one_step(program, mesh, data, batch), steps)
    return jax.jit(scanned(program, drawn_in_place(data, mesh, batch), steps), donate_argnums=2)


def is_accelerator(mesh: Mesh) -> bool:
    """Whether the devices of a mesh are no CPUs."""
    return bool(mesh.devices.flat[0].platform != "cpu")


def scanned(program: Program, draw: Draw, steps: int) -> Advance:
    """`steps` steps as one scan; `draw(seed, step)` gives the images of a step of the stream inside it."""

    def advance(
        hyper: Hyper, frozen: Tree, state: TrainState, first: jax.Array | int
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        def one(state: TrainState, _: None) -> tuple[TrainState, dict[str, jax.Array]]:
            return train_step(program, hyper, frozen, state, draw(hyper.seed, first + state.step))

        return jax.lax.scan(one, state, length=steps)

    return advance


def looped(one: Advance, steps: int) -> Advance:
    """`steps` steps as as many dispatches of one step, whose terms end with a steps axis."""

    def advance(
        hyper: Hyper, frozen: Tree, state: TrainState, first: jax.Array | int
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        rows = []
        for _ in range(steps):
            state, terms = one(hyper, frozen, state, first)
            rows.append(terms)
        return state, {name: jnp.concatenate([row[name] for row in rows], axis=-1) for name in rows[0]}

    return advance


def drawn_in_place(data: Any, mesh: Mesh, batch: int) -> Draw:
    """The images of a stream step, each device of a mesh rendering those that it trains on."""
    here = batch // mesh.shape["data"]
    split = split_batch(mesh).spec

    def mine(seed: jax.Array, step: jax.Array) -> Batch:
        before = step.astype(jnp.uint32) * batch + jax.lax.axis_index("data").astype(jnp.uint32) * here
        return examples_together(data, seed, before + jnp.arange(here, dtype=jnp.uint32))

    # Unchecked: branches and loops of the z-buffer start from constants, which lie on no axis of the mesh.
    each = jax.shard_map(mine, mesh=mesh, in_specs=PartitionSpec(), out_specs=split, check_vma=False)
    return lambda seed, step: each(jnp.asarray(seed, jnp.uint32), jnp.asarray(step))


def _one_step(program: Program, mesh: Mesh, data: Any, batch: int) -> Advance:
    step = compiled_step(program, mesh)

    def advance(
        hyper: Hyper, frozen: Tree, state: TrainState, first: jax.Array | int
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        images = place(_batch(data, hyper.seed, first + state.step, batch), split_batch(mesh))
        state, terms = step(hyper, frozen, state, images)
        return state, {name: term[None] for name, term in terms.items()}

    return advance
