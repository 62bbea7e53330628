"""A network as the cost model reads it: one row a layer, numbers only, so that it has gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.graph.ir import Graph, Node

CONV, DEPTHWISE, DENSE, ADD, MAX_POOL, AVG_POOL, MEAN, FREE = range(8)
_CODES = {
    "conv": CONV,
    "depthwise": DEPTHWISE,
    "dense": DENSE,
    "add": ADD,
    "max_pool": MAX_POOL,
    "avg_pool": AVG_POOL,
    "mean": MEAN,
    "concat": FREE,  # its producers write straight into the joined tensor
    "reshape": FREE,
}

# Encoded bytes a weight at an int8 standard deviation of 32: least squares over 670 layers encoded by
# ethos-u-vela 5.2.0 (see `weights.encoded_bytes_per_weight`).
DENSE_BYTES = 1.0
SPARSE_BYTES = 0.62


class LayerTable(NamedTuple):
    """All fields are float32 [L], one entry a layer in the order of execution.

    Widths `ic` and `oc`, fraction `sparse` and the two byte fields may be any real number and have gradients.
    """

    op: jax.Array  # CONV .. FREE; a FREE row costs nothing (padding)
    oh: jax.Array  # output rows, columns, channels
    ow: jax.Array
    oc: jax.Array
    ih: jax.Array  # input rows, columns, channels
    iw: jax.Array
    ic: jax.Array
    kh: jax.Array  # kernel or window rows, columns
    kw: jax.Array
    stride: jax.Array
    bits: jax.Array  # of the activations, 8 or 16
    sparse: jax.Array  # 1: the weights satisfy 2:4
    dense_bytes_per_weight: jax.Array  # encoded, where sparse = 0
    sparse_bytes_per_weight: jax.Array  # encoded, where sparse = 1
    carries_add: jax.Array  # 1: an add can ride on this layer's output stage
    carried: jax.Array  # 1: an add that can ride on the layer before it
    plain_in: jax.Array  # 1: the input is laid out NHWC (not in bricks of 16 channels)
    plain_out: jax.Array

    @property
    def weights(self) -> jax.Array:
        """Weights of each layer, [L]."""
        full = self.kh * self.kw * self.ic * self.oc
        has = (self.op == CONV) | (self.op == DENSE)
        return jnp.where(has, full, jnp.where(self.op == DEPTHWISE, self.kh * self.kw * self.oc, 0.0))

    @property
    def layer_macs(self) -> jax.Array:
        """Multiply-accumulates of each layer, [L], zeros of 2:4 counted."""
        return self.weights * self.oh * self.ow

    @property
    def macs(self) -> jax.Array:
        """Multiply-accumulates of the network, zeros of 2:4 counted; scalar."""
        return jnp.sum(self.layer_macs)


def layer_table(graph: Graph, *, bits: int = 8) -> LayerTable:
    """The rows of a fused graph, float32 [number of nodes] each, in the order of `layer_names`.

    The weights are dense except where 2:4 holds by shape (one or two input channels); `with_kernels` or
    `_replace(sparse=...)` changes it.

    Raises:
      ValueError: an operation that is not priced yet, an unfused bias or clamp, `bits` other than 8 and 16.
    """
    if bits not in (8, 16):
        raise ValueError(f"activations have 8 or 16 bits, got {bits}")
    carriers = _carriers(graph)
    rows = [_row(graph, node, float(bits), carriers) for node in graph.nodes]
    return LayerTable(*(jnp.asarray(column, jnp.float32) for column in np.array(rows, np.float32).T))


def layer_names(graph: Graph) -> tuple[str, ...]:
    """Name of the tensor that each row of `layer_table` makes; the referee calls its layers the same."""
    return tuple(node.output for node in graph.nodes)


def pad(table: LayerTable, length: int) -> LayerTable:
    """The same network with FREE rows appended up to `length` rows, so that networks can be stacked."""
    missing = length - table.op.shape[0]
    if missing < 0:
        raise ValueError(f"cannot pad a table of {table.op.shape[0]} rows to {length}")
    fill = LayerTable(*(jnp.ones((missing,), jnp.float32) for _ in table))
    fill = fill._replace(op=jnp.full((missing,), FREE, jnp.float32))
    return LayerTable(*(jnp.concatenate(pair) for pair in zip(table, fill, strict=True)))


def _row(graph: Graph, node: Node, bits: float, carriers: dict[str, str]) -> tuple[float, ...]:
    if node.op not in _CODES:
        hint = "fuse the graph first" if node.op in ("bias", "clamp") else f"priced are {', '.join(_CODES)}"
        raise ValueError(f"layer {node.output!r}: operation {node.op!r} has no price; {hint}")
    if node.dilation != (1, 1) or node.strides[0] != node.strides[1]:
        raise ValueError(f"layer {node.output!r}: dilation and unequal strides are not priced yet")
    source, target = graph.shape(node.inputs[0]), graph.shape(node.output)
    ih, iw, ic = _hwc(source)
    oh, ow, oc = _hwc(target)
    kh, kw = node.kernel_shape[:2] if node.op in ("conv", "depthwise") else node.window
    if node.op == "mean":
        kh, kw = ih, iw
    if node.op == "dense":
        ih, iw, ic, oh, ow, oc = 1, 1, source[-1], 1, 1, target[-1]
    by_shape = node.op == "conv" and ic <= 2
    return (
        _CODES[node.op], oh, ow, oc, ih, iw, ic, kh, kw, node.strides[0], bits,
        float(by_shape), DENSE_BYTES, DENSE_BYTES if by_shape else SPARSE_BYTES,
        float(node.output in carriers.values()), float(node.output in carriers),
        float(_plain(graph, node.inputs[0])), float(_plain(graph, node.output)),
    )  # fmt: skip


def _hwc(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return (shape[1], shape[2], shape[3]) if len(shape) == 4 else (1, 1, shape[-1])


def _plain(graph: Graph, name: str) -> bool:
    """Graph inputs and outputs and both sides of a reshape are laid out NHWC, all else in bricks."""
    makers = [node for node in graph.nodes if node.output == name]
    touches_reshape = any(node.op == "reshape" for node in (*graph.consumers(name), *makers))
    return name in graph.inputs or name in graph.outputs or touches_reshape


def _carriers(graph: Graph) -> dict[str, str]:
    """{add: the last weighted layer that feeds it}, where that layer feeds nothing else."""
    order = {node.output: index for index, node in enumerate(graph.nodes)}
    out = {}
    for node in graph.nodes:
        made = [name for name in node.inputs if name in order]
        if node.op != "add" or not made:
            continue
        last = max(made, key=order.__getitem__)
        if graph.node_of(last).op in ("conv", "depthwise", "dense") and len(graph.consumers(last)) == 1:
            out[node.output] = last
    return out
