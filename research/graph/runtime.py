"""Runs a .tflite file in LiteRT on the host: images in, float or raw integer outputs out; and times it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from research.graph.flat import verify
from research.graph.program import LIMITS, Affine
from research.graph.tflite import MISSING

TURN_MS = 5.0  # of one model in one round of `time_tflite`


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
    verify(model)
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
    scale, zero_point = detail["quantization"]
    dtype = np.dtype(detail["dtype"]).name
    return Affine(float(scale), int(zero_point), dtype) if dtype in LIMITS and scale else None


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
        _invoke(interpreter)
        results[row] = interpreter.get_tensor(out["index"])[0]
    return results.astype(np.float32) if out_of is None else out_of.real(results)


def run_raw(
    model: bytes, inputs: Sequence[np.ndarray], *, reference: bool = True, threads: int = 2
) -> tuple[np.ndarray, ...]:
    """Every output of the model as the file stores it, integers stay integers: each [N, ...].

    inputs: one array for each input of the file, [N, ...] in the input's own type; an input or output without
    a leading 1 in the file allows N = 1 only and keeps its whole shape. reference and threads: `run_tflite`.
    ValueError for bytes that are no TFLite model and for inputs of another number, type or shape.
    """
    interpreter = _interpreter(model, threads, reference)
    sources, outs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != len(sources):
        raise ValueError(f"the model reads {len(sources)} input(s), got {len(inputs)}")
    count = len(inputs[0]) if inputs and _batched(sources[0]) else 1
    for value, source in zip(inputs, sources, strict=True):
        shape = (count, *source["shape"][1:]) if _batched(source) else tuple(source["shape"])
        if value.shape != shape or value.dtype != source["dtype"]:
            wanted = f"{np.dtype(source['dtype']).name} {tuple(map(int, shape))}"
            raise ValueError(f"input {source['name']!r} is {value.dtype.name} {value.shape}; wanted {wanted}")
    if count != 1 and not all(_batched(d) for d in (*sources, *outs)):
        raise ValueError(f"the model mixes images; run one image at a time, not {count}")
    results = [np.empty((count, *o["shape"][1:]) if _batched(o) else o["shape"], o["dtype"]) for o in outs]
    for row in range(count):
        for value, source in zip(inputs, sources, strict=True):
            interpreter.set_tensor(source["index"], value[row : row + 1] if _batched(source) else value)
        _invoke(interpreter)
        for result, out in zip(results, outs, strict=True):
            result[slice(row, row + 1) if _batched(out) else ...] = interpreter.get_tensor(out["index"])
    return tuple(results)


def _batched(detail: dict[str, Any]) -> bool:
    return bool(tuple(detail["shape"][:1]) == (1,))


def time_tflite(models: Mapping[str, bytes], rounds: int = 15, threads: int = 1) -> dict[str, list[float]]:
    """{name: ms a run of LiteRT's default kernels, one number a round}, measured on this machine.

    All models take turns in every round, each second round in the opposite order, so that a busy machine slows
    all alike; each turn repeats its model for about 5 ms, after a warm-up. Inputs are zeros.
    ValueError as `run_raw`, for no rounds, or for a model LiteRT does not run.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    runners, repeats = {}, {}
    for name, model in models.items():
        interpreter = runners[name] = _interpreter(model, threads, reference=False)
        for source in interpreter.get_input_details():
            interpreter.set_tensor(source["index"], np.zeros(source["shape"], source["dtype"]))
        _invoke(interpreter)
        repeats[name] = max(1, round(TURN_MS / max(_invoke(interpreter, 3), 1e-3)))
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds):
        for name in list(models)[:: 1 if turn % 2 == 0 else -1]:
            times[name].append(_invoke(runners[name], repeats[name]))
    return times


def _invoke(interpreter: Any, repeats: int = 1) -> float:
    """Mean ms of some runs in a row. ValueError where a kernel gives up."""
    start = time.perf_counter()
    try:
        for _ in range(repeats):
            interpreter.invoke()
    except RuntimeError as error:
        raise ValueError(f"LiteRT cannot run the model: {error}") from None
    return (time.perf_counter() - start) * 1e3 / repeats
