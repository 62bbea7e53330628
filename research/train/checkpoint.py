"""Checkpoints by Orbax: asynchronous, keep-N, atomic, and trusted only after their content hash was checked.

Orbax protects a step against a kill while it is written, not against damage afterwards: a truncated file raises and
a flipped byte is restored silently. So every step carries a note with a sha256 of its arrays and of the note itself,
and `restore_latest_good` moves a step that fails aside and takes the one before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding

Tree = Any

# What Orbax, tensorstore and JSON raise on files that are missing, truncated or changed: also a bare Exception, for
# arrays whose file is gone or empty.
DAMAGE = (Exception,)


class Damaged(ValueError):
    """A committed step that is not what was saved."""


def open_manager(folder: Path, keep: int = 2) -> ocp.CheckpointManager:
    """A manager of `keep` newest steps under `folder`. OSError when the folder cannot be written.

    It belongs to the process that opens it alone and waits for no other one (see `research.train.keeper`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=True, create=False, multiprocessing_options=alone
    )
    return ocp.CheckpointManager(folder.resolve(), options=options)


def save(manager: ocp.CheckpointManager, step: int, state: Tree, note: Mapping[str, Any]) -> None:
    """Starts saving `state` with a JSON `note`; returns before it is on disk (see `manager.wait_until_finished`)."""
    if step not in manager.all_steps():
        sealed = _seal({"note": dict(note), "layout": layout_hash(state), "arrays": content_hash(state)})
        manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(sealed)),
        )


def newest(manager: ocp.CheckpointManager) -> int | None:
    """The newest complete step, None where there is none."""
    return manager.latest_step()


def read_note(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The JSON note of a step: enough to rebuild the shapes of its state. Damaged where it was changed."""
    return dict(_sealed(manager, step)["note"])


def read_state(manager: ocp.CheckpointManager, step: int, like: Tree, sharding: NamedSharding) -> Tree:
    """The state of a step in the structure of `like`, on the devices of `sharding`, whatever devices saved it.

    Damaged when the step is not what was saved; ValueError when it was saved with other shapes.
    """
    sealed = _sealed(manager, step)
    if sealed["layout"] != layout_hash(like):
        raise ValueError(
            f"checkpoint step {step} in {manager.directory} holds other shapes than this config makes; "
            "use another --workdir"
        )

    def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    target = ocp.args.Composite(state=ocp.args.StandardRestore(jax.tree.map(abstract, like)))
    try:
        state = manager.restore(step, args=target)["state"]
    except DAMAGE as error:
        raise Damaged(
            f"checkpoint step {step} in {manager.directory} cannot be read: {_line(error)}"
        ) from error
    if content_hash(state) != sealed["arrays"]:
        raise Damaged(f"checkpoint step {step} in {manager.directory} is not what was saved")
    return state


def restore_latest_good(
    manager: ocp.CheckpointManager, like: Tree, sharding: NamedSharding, tell: Callable[[str], None]
) -> tuple[int, Tree] | None:
    """(step, state) of the newest step that is what was saved, None without any; damaged ones are moved aside.

    `tell` gets one line for each damaged step. ValueError as `read_state` for other shapes.
    """
    while (step := newest(manager)) is not None:
        try:
            return step, read_state(manager, step, like, sharding)
        except Damaged as error:
            tell(f"{error}; kept as {set_aside(manager, step).name}, going on from the step before")
    return None


def set_aside(manager: ocp.CheckpointManager, step: int) -> Path:
    """Renames a step's folder to `damaged-<step>-<n>` beside it, keeping its bytes, and returns the new path."""
    folder = Path(str(manager.directory))
    names = (folder / f"damaged-{step}-{n}" for n in range(1_000_000))
    target = next(path for path in names if not path.exists())
    (folder / str(step)).rename(target)
    manager.reload()
    return target


def layout_hash(tree: Tree) -> str:
    """sha256 of the paths, shapes and dtypes of a tree of arrays (or of their shapes)."""
    rows = [
        (jax.tree_util.keystr(path), tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    return hashlib.sha256(repr(sorted(rows)).encode()).hexdigest()


def content_hash(tree: Tree) -> str:
    """sha256 of every number of a tree of arrays, in the order of their paths; the same on any devices."""
    digest = hashlib.sha256()
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    for path in sorted(leaves):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(jax.device_get(leaves[path])).tobytes())
    return digest.hexdigest()


def _seal(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"seal": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def _sealed(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    try:
        found = manager.restore(step, args=ocp.args.Composite(note=ocp.args.JsonRestore()))["note"]
        content = {key: found[key] for key in ("note", "layout", "arrays")}
        whole = _seal(content)["seal"] == found["seal"]
    except DAMAGE as error:
        raise Damaged(
            f"the note of step {step} in {manager.directory} cannot be read: {_line(error)}"
        ) from error
    if not whole:
        raise Damaged(f"the note of step {step} in {manager.directory} is not what was saved")
    return content


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
