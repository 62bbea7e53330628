"""Facts about weights that the chip cares about: the 2:4 pattern and how many bytes they take when encoded.

Kernels are in JAX's layouts: conv [kh, kw, in, out], dense [in, out]; depthwise is [kh, kw, 1, channels].
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from research.graph.ir import Graph
from research.npu.table import CONV, DENSE, LayerTable

_GROUP, _ZEROS = 4, 2
_STEEP = 5 / 3  # a prelu with slopes above 1, in the price of one without
# Bits a weight of Arm's encoder, least squares over 108 (2:4) and 212 (other) convolutions encoded by
# ethos-u-vela 5.2.0: int8, deviation 8 to 60, normal and Laplace, 0 to 80 % zeros. Mean error 4 % and 7 %.
_OTHER = (0.1388, 0.3927, 0.0938)
_SPARSE = (0.0817, 0.8156, 0.0)


def bad_groups(kernel: np.ndarray) -> tuple[int, int]:
    """(groups of 4 consecutive input channels with fewer than 2 zeros, all groups); one spoils the layer.

    A group shares its output channel and kernel position; a last group of fewer than 4 counts as if filled
    with zeros. Raises ValueError unless `kernel` has input channels as its last but one axis.
    """
    if kernel.ndim < 2:
        raise ValueError(f"a kernel is [..., in, out], got shape {kernel.shape}")
    channels = kernel.shape[-2]
    filled = np.zeros((*kernel.shape[:-2], -(-channels // _GROUP) * _GROUP, kernel.shape[-1]), bool)
    filled[..., :channels, :] = np.asarray(kernel) != 0
    nonzero = filled.reshape(*kernel.shape[:-2], -1, _GROUP, kernel.shape[-1]).sum(axis=-2)
    return int((nonzero > _GROUP - _ZEROS).sum()), int(nonzero.size)


def is_2_4(kernel: np.ndarray) -> bool:
    """Does the chip see 2:4 in an int8 kernel: no bad group and no -128?"""
    return bad_groups(kernel)[0] == 0 and (kernel.dtype != np.int8 or bool((kernel != -128).all()))


def encoded_bytes_per_weight(kernel: np.ndarray) -> float:
    """Bytes a weight takes after Arm's lossless encoder, without padding.

    Args:
      kernel: int8, or float (quantised here, symmetric, one scale an output channel, as the exporter does).

    The encoder spends about log2(|w| + 1) bits on a magnitude (Golomb-Rice) and codes runs of zeros apart, so
    bytes = a * nonzero * mean log2(|w| + 1) + b * nonzero + c * entropy(zero or not), fitted for 2:4 and
    for the rest.
    """
    weights = np.asarray(kernel)
    if weights.dtype != np.int8:
        scale = np.abs(weights).reshape(-1, weights.shape[-1]).max(axis=0) / 127
        weights = np.round(weights / np.where(scale > 0, scale, 1))
    magnitude = np.abs(weights.astype(np.float64)).ravel()
    nonzero = magnitude[magnitude > 0]
    share = nonzero.size / max(magnitude.size, 1)
    spread = float(np.mean(np.log2(nonzero + 1))) if nonzero.size else 0.0
    entropy = -sum(p * np.log2(p) for p in (share, 1 - share) if p > 0)
    a, b, c = _SPARSE if weights.ndim >= 2 and is_2_4(weights) else _OTHER
    return float(a * share * spread + b * share + c * entropy)


def with_kernels(table: LayerTable, graph: Graph, kernels: Mapping[str, np.ndarray]) -> LayerTable:
    """The table with 2:4 and encoded bytes taken from the weights themselves.

    Args:
      kernels: parameter path -> kernel, int8 or float with exact zeros; other layers keep their constants. Real
        slopes of a prelu above 1 cost more: it becomes relu(x) + slope * min(x, 0), five passes instead of three.

    Raises:
      ValueError: a path that no layer of the graph reads.
    """
    unknown = set(kernels) - {node.kernel for node in graph.nodes}
    if unknown:
        raise ValueError(f"no layer reads the kernel {sorted(unknown)[0]!r}: keys are parameter paths")
    columns = {
        name: np.array(getattr(table, name))
        for name in ("sparse", "dense_bytes_per_weight", "sparse_bytes_per_weight", "rate")
    }
    op, paths = np.array(table.op), {n.output: n.kernel for n in graph.nodes if n.op == "constant"}
    for row, node in enumerate(graph.nodes):
        slopes = kernels.get(paths.get(node.inputs[-1]) or "") if node.op == "prelu" else None
        if slopes is not None and np.max(slopes) > 1:
            columns["rate"][row] = _STEEP
        if node.kernel is None or node.kernel not in kernels or node.op == "constant":
            continue
        kernel = np.asarray(kernels[node.kernel]).reshape(node.kernel_shape)
        pattern = op[row] in (CONV, DENSE) and is_2_4(kernel)
        columns["sparse"][row] = float(pattern)
        field = "sparse_bytes_per_weight" if pattern else "dense_bytes_per_weight"
        columns[field][row] = encoded_bytes_per_weight(kernel)
    return table._replace(**{name: jnp.asarray(value, jnp.float32) for name, value in columns.items()})
