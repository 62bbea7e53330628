"""A network as the cost model reads it: one row an operation, numbers only, so that it has gradients.

A row says what is computed; what that becomes on a chip is `lowering`. Which operations run inside another one
is `riding`.
"""

from collections.abc import Mapping
from math import isqrt, log2, prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.graph.ir import BINARY, Graph, Node, Op, Shape
from research.npu.riding import RELAYOUT, copied_share, riders

(
    CONV, DEPTHWISE, DENSE, ADD, MAX_POOL, AVG_POOL, MEAN,
    TRANSPOSE_CONV, MATMUL, MUL, COMPARE, DIV, PRELU, SOFTMAX, RESIZE, LOOKUP, COPY, TRANSPOSE, PAD,
    HOST,  # the compiler leaves it to the CPU
    FREE,
) = range(21)  # fmt: skip
_CODES: Mapping[Op, int] = {
    "conv": CONV, "depthwise": DEPTHWISE, "dense": DENSE, "transpose_conv": TRANSPOSE_CONV, "matmul": MATMUL,
    "add": ADD, "sub": ADD, "neg": ADD, "mul": MUL, "square": MUL, "div": DIV, "prelu": PRELU,
    "maximum": COMPARE, "minimum": COMPARE, "abs": COMPARE, "softmax": SOFTMAX, "mean": MEAN,
    "max_pool": MAX_POOL, "avg_pool": AVG_POOL, "resize": RESIZE, "depth_to_space": HOST, "sqrt": HOST,
    "clamp": COPY, "logistic": LOOKUP, "tanh": LOOKUP, "hard_swish": LOOKUP, "leaky_relu": LOOKUP, "exp": LOOKUP,
    "rsqrt": LOOKUP, "quantize": COPY, "concat": COPY, "reshape": COPY, "slice": COPY, "transpose": TRANSPOSE,
    "pad": PAD, "constant": FREE,
}  # fmt: skip
_HALF_PIXEL_WINDOW = 3.3  # a window that costs what Ethos-U55 takes for its four depthwise passes

# Encoded bytes a weight at an int8 standard deviation of 32: least squares over 670 layers encoded by
# ethos-u-vela 5.2.0 (see `weights.encoded_bytes_per_weight`).
DENSE_BYTES = 1.0
SPARSE_BYTES = 0.62


class LayerTable(NamedTuple):
    """All fields are float32 [L], one entry an operation in the order of execution.

    Widths `ic` and `oc`, fraction `sparse` and the two byte fields may be any real number and have gradients.
    A grouped layer has the channels of one group and `repeats` its number. `kh` and `kw` of a resize are its
    window, those of a mean its reach.
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
    carries_add: jax.Array  # element-wise operations that can ride on this layer's output stage
    carries_lookup: jax.Array  # 1: a table of values is looked up in this layer's output stage
    carried: jax.Array  # 1: an operation that can ride on one before it
    plain_in: jax.Array  # 1: the input is laid out NHWC (not in bricks of 16 channels)
    plain_out: jax.Array
    repeats: jax.Array  # times the row runs: groups, matrices of a batch
    constant: jax.Array  # elements of a constant second operand, 0 for a number
    rate: jax.Array  # cycles an element of an element-wise pass, in those of an add
    reads_back: jax.Array  # rows up to the maker of the first input, 0: the network's input
    rides_back: jax.Array  # rows up to the layer that this operation rides on, 0: on none

    @property
    def weights(self) -> jax.Array:
        """Weights of each layer, [L], in one of its `repeats`."""
        full = self.kh * self.kw * self.ic * self.oc
        has = (self.op == CONV) | (self.op == DENSE) | (self.op == TRANSPOSE_CONV)
        return jnp.where(has, full, jnp.where(self.op == DEPTHWISE, self.kh * self.kw * self.oc, 0.0))

    @property
    def layer_macs(self) -> jax.Array:
        """Multiply-accumulates of each layer, [L], zeros of 2:4 counted."""
        pixels = jnp.where(self.op == TRANSPOSE_CONV, self.ih * self.iw, self.oh * self.ow)
        each = self.weights + jnp.where(self.op == MATMUL, self.ic * self.oc, 0.0)
        return each * pixels * self.repeats

    @property
    def macs(self) -> jax.Array:
        """Multiply-accumulates of the network, zeros of 2:4 counted; scalar."""
        return jnp.sum(self.layer_macs)


def layer_table(graph: Graph, *, bits: int = 8) -> LayerTable:
    """The rows of a graph, float32 [number of nodes] each, in the order of `layer_names`.

    The weights are dense except where 2:4 holds by shape (one or two input channels); `with_kernels` or
    `_replace(sparse=...)` changes it.

    Raises:
      ValueError: `bits` other than 8 and 16.
    """
    if bits not in (8, 16):
        raise ValueError(f"activations have 8 or 16 bits, got {bits}")
    riding = riders(graph)
    order = {node.output: index for index, node in enumerate(graph.nodes)}
    rows = [(*_row(graph, node, float(bits), riding), *_back(node, order, riding)) for node in graph.nodes]
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


def _row(graph: Graph, node: Node, bits: float, riding: Mapping[str, str]) -> tuple[float, ...]:
    source = graph.shape(node.inputs[0]) if node.inputs else node.kernel_shape
    target, name = graph.shape(node.output), node.output
    (ih, iw, ic), (oh, ow, oc) = hwc(source), hwc(target)
    op, stride = _CODES[node.op], max(node.strides)
    window = node.kernel_shape[:2] if node.op in ("conv", "depthwise", "transpose_conv") else node.window
    kh, kw = (_reach(k, d) for k, d in zip(window, node.dilation, strict=True))
    share, rate, repeats = 1.0, 1.0, 1
    if node.op == "mean":
        kh, kw = rows, columns = reduced(node, source)
        oh, ow, oc, op = ih // rows, iw // columns, ic, HOST if len(source) - 1 in node.axes else op
    elif node.op == "conv":
        repeats = ic // node.kernel_shape[2]
        ic, oc = ic // repeats, oc // repeats
    elif node.op == "depthwise" and ic == 1:
        op = CONV
    elif node.op == "depthwise":
        repeats, oc = oc // ic, ic
    elif node.op == "dense":
        oh, ow = (ih, iw) if len(source) == 4 else near_square(prod(source[:-1]))
        ih, iw = oh, ow
    elif node.op == "matmul":
        repeats = prod(target[:-2])
        oh, ow, ih, iw = 1, target[-2], 1, target[-2]
    elif node.op == "resize":
        op, kh, kw = _resized(node, source, target)
    elif op in (COPY, PAD):
        share = copied_share(graph, node)
    elif op == TRANSPOSE:
        rate = 1.0 if node.axes[-1] == len(source) - 1 else 2.0
    if node.op == "quantize" and (node.inputs[0] in graph.inputs or name in graph.outputs):
        op = HOST  # from or to float
    op, share = (op, share) if share else (FREE, 1.0)
    if op == HOST:
        oh, ow, oc = max((ih, iw, ic), (oh, ow, oc), key=prod)
    by_shape = op == CONV and ic <= 2
    rides = [_CODES[graph.node_of(rider).op] for rider, base in riding.items() if base == name]
    return (
        op, oh * share, ow, oc, ih * share, iw, ic, kh, kw, stride, bits,
        float(by_shape), DENSE_BYTES, DENSE_BYTES if by_shape else SPARSE_BYTES,
        sum(c in (ADD, MUL, COMPARE, TRANSPOSE) for c in rides), float(LOOKUP in rides), float(name in riding),
        float(not node.inputs or _plain(graph, node.inputs[0])), float(_plain(graph, name)),
        repeats, _constant_operand(graph, node), rate,
    )  # fmt: skip


def _back(node: Node, order: Mapping[str, int], riding: Mapping[str, str]) -> tuple[int, int]:
    """Rows up to the makers of the first input and of what a node rides on, 0 for none."""
    own = order[node.output]
    names = (node.inputs[0] if node.inputs else "", riding.get(node.output, ""))
    first, base = (own - order.get(name, own) for name in names)
    return first, base


def hwc(shape: Shape) -> tuple[int, int, int]:
    """Rows, columns and channels of a tensor of any rank: the last axes, leading ones joined to the rows."""
    padded = (1, 1, 1, *shape)
    return prod(padded[:-2]), padded[-2], padded[-1]


def near_square(pixels: int) -> tuple[int, int]:
    """(rows, columns) of an image of so many pixels, as square as it can be."""
    rows = next(r for r in range(isqrt(pixels), 0, -1) if pixels % r == 0)
    return rows, pixels // rows


def _reach(kernel: int, dilation: int) -> float:
    """Kernel with the zeros that a dilation writes into it; the chip itself steps over every second pixel."""
    return (kernel - 1) * (dilation // 2 if dilation % 2 == 0 else dilation) + 1


def reduced(node: Node, shape: Shape) -> tuple[int, int]:
    """Rows and columns that a mean sums up."""
    from_end = {len(shape) - axis for axis in node.axes}
    rows, columns, _ = hwc(shape)
    return rows if max(from_end) > 2 else 1, columns if 2 in from_end else 1


def _resized(node: Node, source: Shape, target: Shape) -> tuple[int, float, float]:
    """(op, window): bilinear by a power of two sees as many pixels as it makes, nearest one."""
    corners = int("align_corners" in node.mode)
    ratio = [(target[a] - corners) / max(source[a] - corners, 1) for a in (1, 2)]
    if source[1:3] == (1, 1) or node.mode.startswith("nearest"):
        return RESIZE, 1.0, 1.0
    if ratio[0] < 1 or ratio[1] < 1 or any(log2(r) % 1 for r in ratio):
        return HOST, 1.0, 1.0
    half = _HALF_PIXEL_WINDOW if "half_pixel" in node.mode else 0.0
    return RESIZE, max(ratio[0], half), max(ratio[1], half)


def _constant_operand(graph: Graph, node: Node) -> int:
    made = {other.output: other for other in graph.nodes if other.op == "constant"}
    sizes = [prod(made[name].kernel_shape) for name in node.inputs if name in made and node.op in BINARY]
    return sum(size for size in sizes if size > 1)


def _plain(graph: Graph, name: str) -> bool:
    """Graph inputs and outputs and both sides of a change of layout are laid out NHWC, all else in bricks."""
    makers = [node for node in graph.nodes if node.output == name]
    changes = any(node.op in RELAYOUT for node in (*graph.consumers(name), *makers))
    return name in graph.inputs or name in graph.outputs or changes
