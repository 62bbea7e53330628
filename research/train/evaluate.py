"""Errors of a network on a test set: the same numbers for a float network and for a `.tflite` in LiteRT."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research import nets
from research.graph import inspect, run_tflite
from research.hand.metrics import epe_px, keypoint_report

Tree = Any
CHUNK = 128


def predict(net: Any, params: Tree, norm_stats: Tree, images: np.ndarray) -> np.ndarray:
    """Keypoints `[N,21,2]` in 0..1 of `images [N,S,S]` by the float network, in chunks of one compiled shape.

    ValueError for images of another size.
    """
    run = _forward(net)
    parts = []
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        full = np.concatenate([chunk, np.zeros((CHUNK - len(chunk), *chunk.shape[1:]), chunk.dtype)])
        parts.append(np.asarray(run(params, norm_stats, jnp.asarray(full)))[: len(chunk)])
    return np.concatenate(parts)


@functools.lru_cache(maxsize=64)
def _forward(net: Any) -> Callable[[Tree, Tree, jax.Array], jax.Array]:
    return jax.jit(lambda params, norm_stats, images: nets.forward(net, params, norm_stats, images).keypoints)


def predict_tflite(model: bytes, images: np.ndarray) -> np.ndarray:
    """Keypoints `[N,21,2]` in 0..1 of `images [N,S,S]` by a `.tflite` file of this project in LiteRT.

    The shape of what it puts out says its head (`nets.decode`). Raises ValueError for a file of no hand network.
    """
    raw = run_tflite(model, np.asarray(images, np.float32)[..., None])
    try:
        return np.asarray(nets.decode(jnp.asarray(raw)))
    except ValueError as error:
        raise ValueError(f"this .tflite has {error}") from error


def input_px(model: bytes) -> int:
    """Side of the square grey image a `.tflite` takes. ValueError for a file that takes anything else."""
    facts = inspect(model)
    shape = facts[0].input_shapes[0] if facts and facts[0].input_shapes else ()
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 1:
        raise ValueError(f"this .tflite does not take square grey crops: its input is {list(shape)}")
    return int(shape[1])


def errors(predicted: np.ndarray, truth: np.ndarray, size_px: int) -> dict[str, float]:
    """`error_px` at `size_px` and the numbers of `keypoint_report`, all finite floats."""
    report = {k: float(v) for k, v in keypoint_report(predicted, truth).items()}
    return {"error_px": float(epe_px(predicted, truth, size_px))} | report
