"""Several processes, one run: the first owns the disk and everything that is written, all wait, all hear how it went.

Every process calls the same functions in the same order. In a run of one process nothing here communicates.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from research.train.mesh import place, replicated, split_everywhere
from research.train.signals import interrupt, noted

MEET_S = 3600
# What goes wrong where only the first process can see it: its disk, its files, an optional package.
TOLD = (ValueError, OSError, LookupError, TypeError, RuntimeError, ModuleNotFoundError)


def several() -> bool:
    """Whether this run has more than one process."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process owns the disk."""
    return jax.process_index() == 0


def share(value: Any) -> Any:
    """The first process's `value` in every process; what others give is not looked at."""
    if not several():
        return value
    meet()
    told = np.frombuffer(pickle.dumps(value if is_first() else None), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(told.size)))
    padded = np.zeros(1 << max(10, (size - 1).bit_length()), np.uint8)  # few sizes: few compilations
    if is_first():
        padded[:size] = told
    heard = np.asarray(multihost_utils.broadcast_one_to_all(padded))
    return pickle.loads(heard[:size].tobytes())


def meet() -> None:
    """Waits for all processes without their devices, whose collectives on CPUs give up after half a minute."""
    if several():
        ocp.multihost.sync_global_processes("research.train.hosts", timeout=MEET_S)


def compile_together(step: Any, *arguments: Any) -> None:
    """Compiles a jitted function in every process before the first of them calls it and waits for the others."""
    if several():
        step.lower(*arguments).compile()
        meet()


def by_first(do: Callable[[], Any]) -> Any:
    """Runs `do` in the first process alone while the others wait; its result, or its error, in all of them."""
    if not several():
        return do()
    value, error = share(_tried(do) if is_first() else (None, None))
    if error is not None:
        raise error
    return value


def _tried(do: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return do(), None
    except TOLD as error:
        return None, error


def first_only(do: Callable[[], Any]) -> Any:
    """What `do` gives in the first process, None in the others; where it raises, all raise its error."""
    made: list[Any] = []
    by_first(lambda: made.append(do()))
    return made[0] if made else None


@contextmanager
def held_by_first(open_it: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """A context that only the first process enters; where it cannot, all raise its error."""
    with ExitStack() as stack:
        first_only(lambda: stack.enter_context(open_it()))
        yield


def stop_if_told() -> None:
    """KeyboardInterrupt in every process when a signal was noted in any of them."""
    if several() and (number := int(multihost_utils.process_allgather(np.int32(noted())).max())):
        raise interrupt(number)


class Agreement:
    """Asked at every step, it tells all processes at the same step that a signal came to one of them.

    Each call sums up what was noted so far and reads the sum of the call before, so that no step waits for it.
    """

    def __init__(self, mesh: Mesh) -> None:
        """Over the processes of a mesh."""
        self._everywhere = split_everywhere(mesh)
        self._largest = jax.jit(lambda seen: seen.max(), out_shardings=replicated(mesh))
        self._shape = mesh.devices.shape
        self._before: jax.Array | None = None

    def told(self) -> int:
        """The number of the signal, the same in every process; 0 for none."""
        if not several():
            return 0
        seen = place(np.full(self._shape, noted(), np.int32), self._everywhere)
        before, self._before = self._before, self._largest(seen)
        return 0 if before is None else int(np.asarray(before))


def local(mesh: Mesh) -> NamedSharding:
    """Where the first process can hold an array alone; in a run of one process all devices of the mesh."""
    return replicated(Mesh(np.asarray(jax.local_devices()[:1]), ("data",)) if several() else mesh)


def whole(tree: Any) -> Any:
    """The arrays of a tree in this process's memory, entirely; in a run of one process the tree itself."""
    return jax.tree.map(_whole, tree) if several() else tree


def _whole(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.array(leaf)
    if leaf.is_fully_replicated:
        return np.array(leaf.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
