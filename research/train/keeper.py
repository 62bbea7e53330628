"""The checkpoints of one folder in a run of any number of processes: the first writes and reads, all get the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from research.train import checkpoint
from research.train.hosts import by_first, first_only, local, whole

Tree = Any


class Keeper:
    """A checkpoint manager that only the first process has. Every process makes the same calls, and waits for it.

    No process but the first needs to see its disk: a state is gathered before it is written, and told after it is
    read, so a run goes on with any number of processes and devices.
    """

    def __init__(self, folder: Path, mesh: Mesh, keep: int = 2) -> None:
        """OSError, in every process, when the folder cannot be written."""
        self._manager = first_only(lambda: checkpoint.open_manager(folder, keep))
        self._sharding = local(mesh)

    def restore(self, like: Tree, tell: Callable[[str], None]) -> tuple[int, Tree] | None:
        """See `checkpoint.restore_latest_good`."""
        return by_first(lambda: self._restore(like, tell))

    def _restore(self, like: Tree, tell: Callable[[str], None]) -> tuple[int, Tree] | None:
        found = checkpoint.restore_latest_good(self._manager, like, self._sharding, tell)
        return found and (found[0], whole(found[1]))

    def save(self, step: int, state: Tree, note: Mapping[str, Any]) -> None:
        """See `checkpoint.save`."""
        kept = whole(state)
        by_first(lambda: checkpoint.save(self._manager, step, kept, note))

    def close(self) -> None:
        """Waits until all is on disk, in the first process; the others go on."""
        if self._manager is not None:
            self._manager.wait_until_finished()
            self._manager.close()
