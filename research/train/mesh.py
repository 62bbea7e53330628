"""Data parallelism by sharding alone: batches split over devices, everything else replicated."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def data_mesh(devices: int = 0) -> Mesh:
    """A one-axis mesh "data" over the first `devices` (0: all). ValueError when there are fewer."""
    found = jax.devices()
    if not 0 <= devices <= len(found):
        raise ValueError(f"{devices} devices asked for, {len(found)} found ({found[0].platform})")
    return Mesh(np.asarray(found[: devices or len(found)]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place(tree: Any, sharding: NamedSharding) -> Any:
    """A tree of arrays under one sharding (a copy: the result may be donated)."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf, sharding, may_alias=False), tree)


def check_batch(mesh: Mesh, batch: int) -> None:
    """ValueError when a batch does not split evenly over the mesh."""
    if batch % mesh.size:
        raise ValueError(f"optim.batch={batch} does not split over {mesh.size} devices: choose a multiple")
