"""Checkpoints by Orbax: asynchronous, keep-N, atomic, restored into shapes that the ledger rebuilds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding

Tree = Any


def open_manager(folder: Path, keep: int = 2) -> ocp.CheckpointManager:
    """A manager of `keep` newest steps under `folder`. OSError when the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True, create=False)
    return ocp.CheckpointManager(folder.resolve(), options=options)


def save(manager: ocp.CheckpointManager, step: int, state: Tree, note: Mapping[str, Any]) -> None:
    """Starts saving `state` with a JSON `note`; returns before it is on disk (see `manager.wait_until_finished`)."""
    if step not in manager.all_steps():
        manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(dict(note))),
        )


def newest(manager: ocp.CheckpointManager) -> int | None:
    """The newest complete step, None where there is none."""
    return manager.latest_step()


def read_note(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The JSON note of a step: enough to rebuild the shapes of its state."""
    return manager.restore(step, args=ocp.args.Composite(note=ocp.args.JsonRestore()))["note"]


def read_state(manager: ocp.CheckpointManager, step: int, like: Tree, sharding: NamedSharding) -> Tree:
    """The state of a step in the structure of `like`, on the devices of `sharding`, whatever devices saved it.

    ValueError when the checkpoint does not hold these shapes.
    """

    def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    target = jax.tree.map(abstract, like)
    return manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]
