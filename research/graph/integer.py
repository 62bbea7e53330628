"""From ranges and float weights to integers: int8 activations (affine), int8 kernels (symmetric, one scale an
output channel), int32 biases.

The scheme is TFLite's 8-bit specification (Jacob et al. 2018): real = scale * (integer - zero_point), kernels
with zero point 0 in [-127, 127], bias scale = input scale * kernel scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

import numpy as np

from research.graph.ir import Graph

SAME_SCALE = (
    "reshape",
    "max_pool",
    "avg_pool",
    "concat",
)  # TFLite has these copy integers: one scale in and out

SMALLEST_SPAN = 1e-6  # of an activation range: below it the scale of the next bias would underflow
SMALLEST_CHANNEL = (
    2.0**-16
)  # a kernel scale, relative to the largest of its layer (XNNPACK refuses wild spreads)
LARGEST_BIAS = 2**30  # leaves one bit of the int32 accumulator to the products


class Affine(NamedTuple):
    """int8 quantisation of a tensor: real = scale * (integer - zero_point), -128 <= zero_point <= 127."""

    scale: float
    zero_point: int

    def quantise(self, values: np.ndarray) -> np.ndarray:
        """Nearest int8 of float values, saturating."""
        integers = np.rint(np.asarray(values, np.float32) / np.float32(self.scale)) + self.zero_point
        return np.clip(integers, -128, 127).astype(np.int8)

    def real(self, integers: np.ndarray) -> np.ndarray:
        """float32 values that int8 integers stand for."""
        return (integers.astype(np.float32) - self.zero_point) * np.float32(self.scale)


class IntegerWeights(NamedTuple):
    """kernel int8, laid out as the float one; scale float32 [C]; bias int32 [C], in input_scale * scale."""

    kernel: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


def affine(low: float, high: float) -> Affine:
    """int8 parameters that cover [low, high], widened to hold 0, which is exactly representable.

    A range of no width gets a tiny one. ValueError where low > high or a bound is not finite.
    """
    if not (isfinite(low) and isfinite(high)) or low > high:
        raise ValueError(f"a range needs finite low <= high, got ({low}, {high})")
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < SMALLEST_SPAN:
        high = low + SMALLEST_SPAN
    scale = float(np.float32((high - low) / 255))
    return Affine(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def channel_scales(kernel: np.ndarray, bias: np.ndarray, input_scale: float) -> np.ndarray:
    """float32 [C] scales of a kernel [..., C]: max|w| / 127, wider where a channel is tiny or its bias large.

    An empty channel takes the largest scale of the layer, so that its bias keeps its resolution.
    """
    scale = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(0).astype(np.float64) / 127
    largest = scale.max() if scale.max() > 0 else 1 / 127
    scale = np.where(scale == 0, largest, np.maximum(scale, largest * SMALLEST_CHANNEL))
    return np.maximum(scale, np.abs(bias) / (input_scale * LARGEST_BIAS)).astype(np.float32)


def quantise_weights(kernel: np.ndarray, bias: np.ndarray, input_scale: float) -> IntegerWeights:
    """Integers of a conv, depthwise or dense layer: kernel [..., C] float, bias [C] float.

    Zeros stay exactly zero, so an N:M pattern survives; -128 is never used. ValueError for shapes that do not
    fit or numbers that are not finite.
    """
    if bias.shape != kernel.shape[-1:]:
        raise ValueError(f"bias {bias.shape} does not fit a kernel of {kernel.shape[-1]} output channels")
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise ValueError("weights that are not finite cannot be quantised")
    scale = channel_scales(kernel, bias, input_scale)
    rows = scale.reshape((1,) * (kernel.ndim - 1) + (-1,))
    integers = np.clip(np.rint(kernel / rows), -127, 127).astype(np.int8)
    unit = scale.astype(np.float64) * input_scale
    return IntegerWeights(integers, scale, np.rint(bias / unit).astype(np.int32))


def correct_bias(
    kernel: np.ndarray, bias: np.ndarray, input_scale: float, input_mean: np.ndarray
) -> np.ndarray:
    """bias [C] plus E[W x] - E[Wq x], the mean error of the rounded kernel (Nagel et al. 2019, section 4.2).

    input_mean: mean of each input channel, [Cin] (conv, dense) or [C] (depthwise, kernel [k, k, 1, C]).
    Zero padding is ignored. ValueError where it has another length.
    """
    depthwise = kernel.ndim == 4 and kernel.shape[2] == 1 and input_mean.shape == kernel.shape[-1:]
    if not depthwise and input_mean.shape != kernel.shape[-2:-1]:
        raise ValueError(f"input means {input_mean.shape} do not fit a kernel {kernel.shape}")
    rounded = quantise_weights(kernel, bias, input_scale)
    error = kernel - rounded.kernel * rounded.scale.reshape((1,) * (kernel.ndim - 1) + (-1,))
    per_input = error.reshape(-1, *kernel.shape[-2:]).sum(0)  # [Cin or 1, C]
    means = input_mean[None, :] if depthwise else input_mean[:, None]
    return bias + (per_input * means).sum(0)


def shared_scales(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Groups of tensors that must have one scale, because an operation moves integers between them unchanged.

    Every tensor is in exactly one group; groups and names come in graph order.
    """
    group = {t.name: [t.name] for t in graph.tensors}
    for node in graph.nodes:
        if node.op in SAME_SCALE:
            for name in node.inputs:
                ours, theirs = group[node.output], group[name]
                if ours is not theirs:
                    theirs.extend(ours)
                    group.update(dict.fromkeys(ours, theirs))
    order = {t.name: i for i, t in enumerate(graph.tensors)}
    unique = {id(g): tuple(sorted(g, key=order.__getitem__)) for g in group.values()}
    return tuple(sorted(unique.values(), key=lambda names: order[names[0]]))


def tensor_scales(graph: Graph, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Affine]:
    """int8 parameters of every tensor; a group with one scale covers the ranges given for any of its members.

    ValueError naming the tensors where a group has no range, and for ranges of unknown tensors.
    """
    unknown = sorted(set(ranges) - {t.name for t in graph.tensors})
    if unknown:
        known = ", ".join(t.name for t in graph.tensors)
        raise ValueError(
            f"ranges name {', '.join(map(repr, unknown))}, not a tensor of the graph; it has {known}"
        )
    scales: dict[str, Affine] = {}
    for names in shared_scales(graph):
        given = [(name, ranges[name]) for name in names if name in ranges]
        if not given:
            raise ValueError(f"no range (low, high) for {' or '.join(map(repr, names))}; calibrate this site")
        for name, (low, high) in given:
            if not (isfinite(low) and isfinite(high)) or low > high:
                raise ValueError(f"range of {name!r} needs finite low <= high, got ({low}, {high})")
        parameters = affine(min(low for _, (low, _) in given), max(high for _, (_, high) in given))
        scales.update(dict.fromkeys(names, parameters))
    return scales
