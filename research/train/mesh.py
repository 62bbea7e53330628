"""Parallelism by sharding alone: batches split over the axis "data", wide kernels, when asked, over "model"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

WIDE = 256  # output channels from which a kernel is worth splitting


def data_mesh(devices: int = 0, model: int = 1) -> Mesh:
    """A mesh with the axis "data" over the first `devices` (0: all) of all processes.

    With `model` above 1 it has a second axis "model" of that many. ValueError when there are fewer devices, when they
    do not divide, or when a process would have none.
    """
    found = jax.devices()
    if not 0 <= devices <= len(found):
        raise ValueError(f"{devices} devices asked for, {len(found)} found ({found[0].platform})")
    taken = found[: devices or len(found)]
    if len({device.process_index for device in taken}) != jax.process_count():
        raise ValueError(f"{devices} devices leave one of {jax.process_count()} processes without any")
    if model < 1 or len(taken) % model:
        raise ValueError(f"{len(taken)} devices do not divide into groups of {model} for the axis 'model'")
    if model == 1:
        return Mesh(np.asarray(taken), ("data",))
    return Mesh(np.asarray(taken).reshape(-1, model), ("data", "model"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def split_everywhere(mesh: Mesh) -> NamedSharding:
    """An array with the shape of the mesh, one number a device."""
    return NamedSharding(mesh, PartitionSpec(*mesh.axis_names))


def split_wide(mesh: Mesh, tree: Any, wide: int = WIDE) -> Any:
    """A sharding for every leaf: kernels of `wide` outputs and more split them over "model", the rest is replicated.

    The rule looks at shapes alone, so an optimiser's moments lie as the kernels they belong to.
    """
    parts = dict(mesh.shape).get("model", 1)

    def sharding(leaf: Any) -> NamedSharding:
        shape = np.shape(leaf)
        if parts == 1 or len(shape) < 2 or shape[-1] < wide or shape[-1] % parts:
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*(None,) * (len(shape) - 1), "model"))

    return jax.tree.map(sharding, tree)


def place(tree: Any, sharding: Any) -> Any:
    """A tree of arrays under one sharding, or a tree of them (a copy: the result may be donated).

    With several processes every one of them must hold the whole tree, and keeps its own part.
    """
    if isinstance(sharding, NamedSharding):
        return jax.tree.map(lambda leaf: _place(leaf, sharding), tree)
    return jax.tree.map(_place, tree, sharding)


def _place(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding, may_alias=False)
    held = np.array(leaf)
    return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])


def own_rows(mesh: Mesh, batch: int) -> np.ndarray:
    """The rows of a batch that the devices of this process work on, ascending."""
    parts = split_batch(mesh).addressable_devices_indices_map((batch,)).values()
    rows = [np.arange(batch)[part] for part in parts if part is not None]
    return np.unique(np.concatenate(rows))


def place_rows(own: Mapping[str, Any], rows: np.ndarray, mesh: Mesh, batch: int) -> dict[str, jax.Array]:
    """A batch over all processes, each of which holds only its `own_rows`."""
    split = split_batch(mesh)

    def shard(held: np.ndarray, index: Any) -> np.ndarray:
        return held[np.searchsorted(rows, np.arange(batch)[index[0]])]

    def global_array(part: Any) -> jax.Array:
        held = np.asarray(part)
        shape = (batch, *held.shape[1:])
        return jax.make_array_from_callback(shape, split, lambda index: shard(held, index))

    return {name: global_array(part) for name, part in own.items()}


def check_batch(mesh: Mesh, batch: int) -> None:
    """ValueError when a batch does not split evenly over the mesh."""
    parts = mesh.shape["data"]
    if batch % parts:
        raise ValueError(f"optim.batch={batch} does not split over {parts} devices: choose a multiple")
