"""Cross-layer equalisation (Nagel et al. 2019, section 4.1): channels trade range between two layers.

relu(s x) = s relu(x) for s > 0, so what a layer's output channel is divided by, the next layer's input channel
can be multiplied with. s = sqrt(r1 / r2) makes the largest weights of both the same; the output stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import numpy as np

from research.graph.ir import WEIGHTED, Graph, Node
from research.graph.weights import Params, weights_of

ROUNDS = 20  # over all pairs: a layer in the middle of two pairs is scaled by both


class Pair(NamedTuple):
    """Two layers by their outputs, and the least and largest divisor of a channel, or why they were left alone."""

    first: str
    second: str
    least: float = 1.0
    largest: float = 1.0
    refused: str = ""


def equalise(
    graph: Graph, params: Params, peaks: Mapping[str, np.ndarray] | None = None
) -> tuple[dict[str, np.ndarray], tuple[Pair, ...]]:
    """(float32 weights by path with the ranges of neighbouring layers equalised, report); outputs stay the same.

    A pair is a layer whose only reader is another layer, in a fused graph. After a relu6 only channels that never
    reach 6 are scaled, and to at most 6: peaks, {first layer's output: largest value of each channel, [C]} on
    data, tells which. ValueError as `weights_of`.
    """
    weights = {path: array.copy() for path, array in weights_of(graph, params).arrays.items()}
    report, pairs, peaks = list[Pair](), list[tuple[Node, Node]](), peaks or {}
    for first in graph.nodes:
        readers = graph.consumers(first.output)
        ops = (first.op, *(reader.op for reader in readers))
        if len(readers) == 1 and set(ops) <= set(WEIGHTED) and first.output not in graph.outputs:
            reason = _refusal(graph, first, readers[0], peaks)
            if reason:
                report.append(Pair(first.output, readers[0].output, refused=reason))
            else:
                pairs.append((first, readers[0]))
    total = {first.output: np.ones(first.kernel_shape[-1]) for first, _ in pairs}
    for first, second in pairs * ROUNDS:
        out = weights[str(first.kernel)].reshape(-1, first.kernel_shape[-1])
        into = weights[str(second.kernel)].reshape(prod(second.kernel_shape[:-2]), out.shape[1], -1)
        ranges = np.abs(out).max(0).astype(np.float64), np.abs(into).max((0, 2)).astype(np.float64)
        before = total[first.output]
        after = before * np.sqrt(np.divide(*ranges, out=np.ones_like(before), where=np.minimum(*ranges) > 0))
        if first.activation == "relu6":
            peak = np.asarray(peaks[first.output], np.float64)
            after = np.where(peak < 6, np.maximum(after, peak / 6), 1.0)
        by = (after / before).astype(np.float32)
        out /= by[None, :]
        into *= by[None, :, None]
        if first.bias is not None:
            weights[first.bias].reshape(-1)[:] /= by
        total[first.output] = after
    report += [
        Pair(a.output, b.output, float(total[a.output].min()), float(total[a.output].max())) for a, b in pairs
    ]
    return weights, tuple(report)


def _refusal(graph: Graph, first: Node, second: Node, peaks: Mapping[str, np.ndarray]) -> str:
    used = [path for node in graph.nodes for path in (node.kernel, node.bias) if path is not None]
    if first.kernel is None or second.kernel is None:
        return "a kernel is computed from other weights; fold it first"
    if any(used.count(str(path)) > 1 for path in (first.kernel, first.bias, second.kernel)):
        return "another layer reads the same weights"
    if second.op != "depthwise" and second.kernel_shape[-2] != first.kernel_shape[-1]:
        return "the second layer is a grouped convolution"
    if first.activation == "relu6" and first.output not in peaks:
        return "relu6 may saturate; pass the peaks of its channels on data"
    return "relu_n1_to_1 does not scale" if first.activation == "relu_n1_to_1" else ""
