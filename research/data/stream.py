"""The one door to data: a spec of any kind -> its training stream and its test set.

Renders are drawn inside jit, hands of a fixed set are looked up on the host and varied inside jit; both are pure
functions of (spec, seed, step), and some rows of a batch are those of the whole batch to the bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.data import recorded, redrawn, taught
from research.data.recorded import RecordedHands, held_out
from research.data.redrawn import RedrawnHands
from research.data.rendered_hands import prepare_test_set, read_test_set
from research.data.synthetic import RenderedHands, batch_at, examples_at
from research.data.taught import TaughtHands

Stream = Callable[[int, int], dict[str, jax.Array]]
_FEW = 512
_LOOKED_UP: dict[type, Callable[[Any], Callable[[int, np.ndarray], dict[str, jax.Array]]]] = {
    RecordedHands: recorded.examples,
    RedrawnHands: redrawn.examples,
    TaughtHands: taught.examples,
}


@functools.lru_cache(maxsize=16)
def batches(data: Any, batch: int) -> Stream:
    """A spec's stream: `(seed, step) -> {"image" [batch,S,S], "keypoints" [batch,21,2]}`, one compile each."""
    if not drawn(data):
        return own_batches(data, batch, tuple(range(batch)))
    return jax.jit(lambda seed, step: batch_at(data, seed, step, batch))


@functools.lru_cache(maxsize=16)
def own_batches(data: Any, batch: int, rows: tuple[int, ...]) -> Stream:
    """`batches`, but only some rows of each batch, equal to the bit."""
    if not drawn(data):
        at = _LOOKED_UP[type(data)](data)
        mine = np.asarray(rows, np.int64)
        return lambda seed, step: at(int(seed), int(step) * batch + mine)
    own = np.asarray(rows, np.uint32)
    return jax.jit(lambda seed, step: examples_at(data, seed, np.uint32(batch) * jnp.uint32(step) + own))


def held_out_set(data: Any, seed: int, folder: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Test images `[N,S,S]` in 0..1 and keypoints `[N,21,2]`; renders are prepared once below `folder`.

    Errors as `prepare_test_set`, `read_test_set` and `recorded.held_out`.
    """
    if isinstance(data, RecordedHands):
        return held_out(data)
    return read_test_set(prepare_test_set(data if drawn(data) else data.hands, seed, folder))


def drawn(data: Any) -> bool:
    """Whether a stream is drawn by a pure function, which can run inside a compiled step: renders, and no others."""
    return isinstance(data, RenderedHands)


def untaught(data: Any) -> Any:
    """The data for some images that nobody trains on, of another seed: without a teacher, without a large set."""
    if isinstance(data, RedrawnHands):
        return replace(data, images=min(data.images, _FEW), cache="")
    return data.hands if isinstance(data, TaughtHands) else data
