"""Ranges and channel means from images, in small batches; biases corrected by what the integers do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np

from research.graph.exact import values
from research.graph.integer import Range, precisions
from research.graph.interpret import Images, site_values
from research.graph.ir import WEIGHTED, Graph
from research.graph.program import LIMITS, Program
from research.graph.weights import Params

BATCH = 32  # images whose tensors are held at a time
BINS = 2048  # of a histogram between the extremes of a tensor
CANDIDATES = 128  # ends of a range that are tried on each side


@dataclass(frozen=True)
class MinMax:
    """Every value seen is covered."""


@dataclass(frozen=True)
class Percentile:
    """At each end (100 - percent) % of the values may lie outside; percent is in (50, 100]."""

    percent: float = 99.99


@dataclass(frozen=True)
class MeanSquare:
    """The range of least expected squared error: step^2 / 12 for rounding (0 is exact) and what is clipped."""


Method = MinMax | Percentile | MeanSquare


class ChannelStatistics(NamedTuple):
    """Mean and largest value of every channel (last axis) of every tensor, each [C], by tensor."""

    means: dict[str, np.ndarray]
    peaks: dict[str, np.ndarray]


def _all_of(images: Images) -> tuple[np.ndarray, ...]:
    given = images if isinstance(images, tuple | list) else (images,)
    return tuple(np.asarray(part, np.float32) for part in given)


def _batches(graph: Graph, params: Params, images: Images) -> Iterator[dict[str, np.ndarray]]:
    """Every tensor of the graph for BATCH images after the other."""
    given, run = _all_of(images), jax.jit(lambda *parts: site_values(graph, params, parts))
    if not len(given[0]):
        raise ValueError("calibration needs at least one image")
    for start in range(0, len(given[0]), BATCH):
        found = run(*(part[start : start + BATCH] for part in given))
        yield {name: np.asarray(value) for name, value in found.items()}


def channel_statistics(graph: Graph, params: Params, images: Images) -> ChannelStatistics:
    """Over all images: `means` for the bias correction of `quantise`, `peaks` for `equalise`. Errors as `calibrate`."""
    means, peaks, count = dict[str, np.ndarray](), dict[str, np.ndarray](), 0
    for found in _batches(graph, params, images):
        size = len(found[graph.inputs[0]])
        count += size
        for name, value in found.items():
            flat = value.reshape(-1, value.shape[-1] if value.ndim else 1)
            peaks[name] = np.maximum(peaks.get(name, -np.inf), flat.max(0))
            before = means.get(name, np.zeros(flat.shape[1]))
            means[name] = before + (flat.mean(0, dtype=np.float64) - before) * (size / count)
    return ChannelStatistics(means, peaks)


def calibrate(
    graph: Graph,
    params: Params,
    images: Images,
    method: Method = MinMax(),
    bits: Mapping[str, int] | None = None,
) -> dict[str, Range]:
    """(low, high) of every tensor over the images [N, H, W, C] (a tuple for several inputs), for `quantise`.

    Two passes: extremes, then (but for MinMax) histograms between them. bits: as `quantise` takes them; the
    MeanSquare range depends on the number of levels. ValueError as `site_values`, without images, and for a
    percentile out of range.
    """
    if isinstance(method, Percentile) and not 50 < method.percent <= 100:
        raise ValueError(f"a percentile lies in (50, 100], got {method.percent:g}")
    ends: dict[str, Range] = {}
    for found in _batches(graph, params, images):
        for name, v in found.items():
            low, high = ends.get(name, (np.inf, -np.inf))
            ends[name] = min(low, float(v.min())), max(high, float(v.max()))
    if isinstance(method, MinMax):
        return ends
    counts, zeros = {name: np.zeros(BINS) for name in ends}, dict.fromkeys(ends, 0)
    for found in _batches(graph, params, images):
        for name, v in found.items():
            counts[name] += np.histogram(v[v != 0], BINS, ends[name])[0]
            zeros[name] += int(np.count_nonzero(v == 0))
    if isinstance(method, Percentile):
        return {name: _percentile(counts[name], zeros[name], ends[name], method.percent) for name in ends}
    dtypes = precisions(graph, bits or {})
    return {name: _mean_square(counts[name], ends[name], dtypes[name] == "int16") for name in ends}


def _percentile(counts: np.ndarray, zeros: int, ends: Range, percent: float) -> Range:
    """Edges of the bins beyond which at most the allowed share lies, on each side."""
    edges = np.linspace(*ends, BINS + 1)
    counts[np.clip(np.searchsorted(edges, 0.0, "right") - 1, 0, BINS - 1)] += zeros
    below = np.append(0, np.cumsum(counts))
    outside = below[-1] * (1 - percent / 100)
    return float(edges[below <= outside][-1]), float(edges[below >= below[-1] - outside][0])


def _mean_square(counts: np.ndarray, ends: Range, wide: bool) -> Range:
    edges = np.linspace(*ends, BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    low, high = (np.linspace(0, end, CANDIDATES + 1)[1:] for end in (min(ends[0], 0.0), max(ends[1], 0.0)))
    below = np.square(np.minimum(centres[None, :] - low[:, None], 0)) @ counts
    above = np.square(np.maximum(centres[None, :] - high[:, None], 0)) @ counts
    steps = np.maximum(-low[:, None], high[None, :]) / 32767 if wide else (high[None, :] - low[:, None]) / 255
    error = below[:, None] + above[None, :] + np.square(steps) / 12 * counts.sum()
    at = np.unravel_index(np.argmin(error), error.shape)
    return float(low[at[0]]), float(high[at[1]])


def correct_empirically(program: Program, images: Images) -> Program:
    """What `quantise` made, with biases that bring the mean of every output channel to where it is in float.

    Layer by layer, on what the exact integers of the layers before, already corrected, make of the images
    [N, H, W, C] (a tuple for several inputs); the empirical correction of Nagel et al. (2019, supplement), with
    means after the activation and within the range of the integers. All images are held at once; some hundreds
    are enough. Errors as `site_values`.
    """
    graph, scales, integers = program.graph, program.scales, dict(program.integers)
    real = site_values(graph, program.params, _all_of(images))
    whole = {name: scales[name].quantise(np.asarray(real[name])) for name in graph.inputs}
    for node in graph.nodes:
        read, made = tuple(dict.fromkeys(node.inputs)), node.output
        alone = Graph((node,), tuple(map(graph.tensor, (*read, made))), read, (made,))

        def run(node: str = made, alone: Graph = alone) -> np.ndarray:
            step = Program(alone, {}, scales, integers)
            return np.asarray(values(step, [whole[name] for name in alone.inputs])[node])

        whole[made] = run()
        if node.op in WEIGHTED:
            axes, layer = tuple(range(whole[made].ndim - 1)), integers[made]
            target = np.clip(real[made], *scales[made].real(np.asarray(LIMITS[scales[made].dtype])))
            error = np.asarray(target).mean(axes) - scales[made].real(whole[made]).mean(axes)
            shift = np.rint(error / (layer.scale.astype(np.float64) * scales[read[0]].scale))
            integers[made] = layer._replace(bias=layer.bias + shift.astype(layer.bias.dtype))
            whole[made] = run()
    return replace(program, integers=integers)
