"""Runs a .tflite file in LiteRT on the host: float images in, float outputs out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from research.graph.integer import Affine
from research.graph.tflite import MISSING, parse


@contextmanager
def _quiet() -> Iterator[None]:
    """Sends file descriptor 2 to nowhere: LiteRT announces its delegates there and has no switch for it."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _interpreter(model: bytes, threads: int, reference: bool) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ModuleNotFoundError:
        raise ModuleNotFoundError("running a TFLite model " + MISSING.format("ai-edge-litert")) from None
    parse(model)
    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    try:
        with _quiet():
            interpreter = Interpreter(
                model_content=model, num_threads=threads, experimental_op_resolver_type=kind
            )
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"LiteRT refuses the model: {error}") from None
    return interpreter


def _affine(detail: dict[str, Any]) -> Affine | None:
    if detail["dtype"] != np.int8:
        return None
    scale, zero_point = detail["quantization"]
    return Affine(float(scale), int(zero_point))


def run_tflite(model: bytes, images: np.ndarray, threads: int = 2, reference: bool = False) -> np.ndarray:
    """First output of the model for float images [N, H, W, C], as float32 [N, ...].

    Quantises the images to the input's scale and turns the output back to real values. threads: CPU threads;
    reference: TFLite's plain kernels, rounding as specified, instead of XNNPACK's fast ones.
    ValueError for bytes that are no TFLite model, images of another shape or values that are not finite;
    ModuleNotFoundError without ai-edge-litert.
    """
    interpreter = _interpreter(model, threads, reference)
    source, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    images, wanted = np.asarray(images, np.float32), tuple(int(s) for s in source["shape"][1:])
    if images.ndim != len(wanted) + 1 or images.shape[1:] != wanted:
        raise ValueError(
            f"images have shape {images.shape}; the model reads [N, {', '.join(map(str, wanted))}]"
        )
    if not np.isfinite(images).all():
        raise ValueError("images hold values that are not finite")
    into, out_of = _affine(source), _affine(out)
    batch = images if into is None else into.quantise(images)
    results = np.empty((len(batch), *out["shape"][1:]), out["dtype"])
    for row, image in enumerate(batch):
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        results[row] = interpreter.get_tensor(out["index"])[0]
    return results.astype(np.float32) if out_of is None else out_of.real(results)
