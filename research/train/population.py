"""P trials of one shape in one executable: a chip that one small network starves is filled by many of them.

Trials share everything that is compiled (network, links, batch); seeds and all floats of a config are their own. Each
device holds whole trials and nothing is sent between devices.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from research.data.synthetic import examples_together
from research.train.dispatch import Advance, Batch, Draw, is_accelerator, looped
from research.train.mesh import split_batch
from research.train.state import Hyper, Program, TrainState
from research.train.step import train_step

Tree = Any


def stack(trials: Sequence[Tree]) -> Tree:
    """Trees of one structure (hypers, frozen weights, states) as one tree with a leading axis of trials."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trials)


def unstack(tree: Tree) -> list[Tree]:
    """The inverse of `stack`, as numpy arrays."""
    host = jax.tree.map(np.asarray, tree)
    count = len(jax.tree.leaves(host)[0])
    return [jax.tree.map(lambda leaf, i=i: leaf[i], host) for i in range(count)]


@functools.cache
def population(
    program: Program,
    mesh: Mesh,
    data: Any,
    batch: int,
    steps: int,
    *,
    one_seed: bool = False,
    scan: bool | None = None,
) -> Advance:
    """The `dispatch` of stacked trials at one step: hyper, frozen, state and every term `[P,K]` lead with their axis.

    P must split over the devices of the mesh (`check_trials`); every trial trains on whole batches of its seed's
    stream. With `one_seed` all seeds are equal, and a device renders each batch once for all its trials. The states
    are donated.
    """
    together = is_accelerator(mesh) if scan is None else scan

    def draw(seed: jax.Array | int, step: jax.Array | int) -> Batch:
        before = jnp.asarray(step).astype(jnp.uint32) * batch
        return examples_together(data, seed, before + jnp.arange(batch, dtype=jnp.uint32))

    each = side_by_side(program, draw, steps if together else 1, one_seed)
    split = split_batch(mesh).spec
    specs = (split, split, split, PartitionSpec())  # unchecked, as `drawn_in_place`
    run = jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
    one = jax.jit(run, donate_argnums=2)
    return one if together else looped(one, steps)


def side_by_side(program: Program, draw: Draw, steps: int, one_seed: bool) -> Advance:
    """`steps` steps of stacked trials as one scan; `draw(seed, step)` gives the images of a step inside it."""

    def advance(
        hyper: Hyper, frozen: Tree, states: TrainState, first: jax.Array | int
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        seeds, each = jnp.asarray(hyper.seed), functools.partial(train_step, program)

        def one(states: TrainState, _: None) -> tuple[TrainState, dict[str, jax.Array]]:
            step = first + states.step[0]
            images = draw(seeds[0], step) if one_seed else jax.vmap(draw, (0, None))(seeds, step)
            return jax.vmap(each, (0, 0, 0, None if one_seed else 0))(hyper, frozen, states, images)

        states, terms = jax.lax.scan(one, states, length=steps)
        return states, {name: term.T for name, term in terms.items()}

    return advance


def check_trials(mesh: Mesh, trials: int) -> None:
    """ValueError when trials do not split evenly over the devices of a mesh."""
    parts = mesh.shape["data"]
    if trials < 1 or trials % parts:
        raise ValueError(f"{trials} trials do not split over {parts} devices: choose a multiple")
