"""A network in the operations that the compiler schedules: `steps_of`.

After `tflite_graph_optimiser.cpp`, `graphir_optimiser.cpp` and `scheduler_decompose.cpp` of ethos-u-vela 5.2.0.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from math import log2, prod
from typing import Any

import numpy as np

from research.graph.ir import Node
from research.npu.chip import Chip
from research.npu.exact_softmax import softmax
from research.npu.exact_steps import HOST, Area, Step, View, deepen, in_order
from research.npu.network import Network
from research.npu.operation import Size, Weights
from research.npu.riding import copied_share
from research.npu.table import HOST as ON_HOST
from research.npu.table import hwc, near_square, reduced

_BINARY: Mapping[str, str] = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "maximum": "Maximum", "minimum": "Minimum",
}  # fmt: skip
_ACTIVATIONS: Mapping[str, str] = {"relu": "Relu", "relu6": "Relu6", "relu_n1_to_1": "ReluN1To1"}
_LOOKUPS = ("logistic", "tanh", "hard_swish", "leaky_relu", "exp", "rsqrt")
_TABLE_BYTES, _WIDE_TABLE_BYTES = 256, 2048
_MEAN_ROWS, _MEAN_PIXELS = 64, 64 * 64  # that one depthwise pass sums up


def steps_of(network: Network, chip: Chip) -> list[Step]:
    """The scheduled operations in the order of execution, each with the areas it reads and writes."""
    lowering = _Lowering(network, chip)
    for row, node in enumerate(network.graph.nodes):
        lowering.node(row, node)
    results = list({id(a): a for a in (lowering.views[n].area for n in network.graph.outputs)}.values())
    steps = in_order(results)
    for step in steps:
        deepen(step)
        for view in step.inputs:
            view.area.readers.append(step)
    return steps


class _Lowering:
    """What has been lowered: the view of each tensor that is made."""

    def __init__(self, network: Network, chip: Chip) -> None:
        self.network, self.graph, self.chip = network, network.graph, chip
        self.ops = np.asarray(network.table.op)
        self.uses = Counter(n for node in self.graph.nodes for n in node.inputs) + Counter(self.graph.outputs)
        self.views: dict[str, View] = {n: self.area(n, given=True, linear=True) for n in self.graph.inputs}
        self.wide_table = _WIDE_TABLE_BYTES if chip.family == "u85" else 0  # Ethos-U55 knows these curves

    def area(self, name: str, **fields: Any) -> View:
        shape = hwc(self.graph.shape(name))
        result = name in self.graph.outputs
        return View(Area(name, shape, self.network.bits.get(name, 8), result=result, **fields), shape)

    def known(self, name: str, shape: Size, bits: int) -> View:
        """A constant, in flash."""
        return View(Area(name, shape, bits, constant=True, linear=True, memory="flash"), shape)

    def emit(self, step: Step) -> Step:
        step.ofm.area.makers.append(step)
        return step

    def make(self, node: Node, kind: str, ifm: View, **fields: Any) -> None:
        """A step that makes the tensor of a node, then its activation."""
        out = self.area(node.output)
        out = dataclasses.replace(out, shape=fields.pop("shape", out.shape))
        own, act = out, _ACTIVATIONS.get(node.activation)
        if act:
            own = View(Area(node.output, out.area.shape, out.area.bits), out.shape)
        self.emit(Step(node.output, kind, ifm, own, **fields))
        if act:
            self.emit(Step(node.output, act, own, out))
        self.views[node.output] = View(out.area, hwc(self.graph.shape(node.output)))

    def weights(self, row: int, node: Node, shape: tuple[int, int, int, int]) -> Weights:
        values = self.network.kernels.get(node.output)
        if values is not None:
            return Weights(np.asarray(values).reshape(shape), shape)
        table = self.network.table
        sparse = bool(np.asarray(table.sparse)[row] > 0.5)
        each = table.sparse_bytes_per_weight if sparse else table.dense_bytes_per_weight
        return Weights(None, shape, float(np.asarray(each)[row]), sparse)

    def node(self, row: int, node: Node) -> None:
        """Lowers one node."""
        if node.op == "constant":
            shape = hwc(node.kernel_shape or (1,))
            bits = self.network.bits.get(node.output, 8)
            self.views[node.output] = self.known(node.output, shape, bits)
            return
        source = self.views[node.inputs[0]]
        if int(self.ops[row]) == ON_HOST or (
            self.chip.family == "u55" and (node.op == "div" or (node.op == "matmul" and source.area.bits == 16))
        ):
            self.make(node, HOST, source)
            return
        lower = getattr(self, f"_{node.op}", None)
        if lower is not None:
            lower(row, node, source)
        elif node.op in _BINARY:
            self.make(node, _BINARY[node.op], source, ifm2=self.views[node.inputs[1]])
        elif node.op in _LOOKUPS:
            self._lookup(node, source)
        else:
            self.make(node, {"abs": "Abs", "neg": "Sub", "square": "Mul"}.get(node.op, "MemoryCopy"), source)

    # Layers with weights

    def _conv(self, row: int, node: Node, source: View) -> None:
        kh, kw, deep, made = node.kernel_shape
        groups = source.shape[2] // deep
        fields: dict[str, Any] = {"kernel": (kh, kw), "stride": node.strides, "dilation": node.dilation}
        if max(node.dilation) > 2:
            fields |= {"kernel": tuple((k - 1) * d + 1 for k, d in zip((kh, kw), node.dilation, strict=True))}
            fields |= {"dilation": (1, 1)}
        weights = self.weights(row, node, (kh, kw, deep, made))
        if groups > 1 or max(node.dilation) > 2:
            weights = Weights(None, (*fields["kernel"], source.shape[2], made), 1 / groups)
        self.make(node, "Conv2D", source, weights=weights, **fields)

    def _depthwise(self, row: int, node: Node, source: View) -> None:
        kh, kw, _, made = node.kernel_shape
        kind = "Conv2D" if source.shape[2] == 1 else "DepthwiseConv2D"
        weights = self.weights(row, node, (kh, kw, 1, made))
        fields = {"kernel": (kh, kw), "stride": node.strides, "dilation": node.dilation}
        self.make(node, kind, source, weights=weights, **fields)

    def _dense(self, row: int, node: Node, source: View) -> None:
        whole = self.graph.shape(node.inputs[0])
        h, w = source.shape[:2] if len(whole) == 4 else near_square(prod(whole[:-1]))
        deep, made = node.kernel_shape
        source = dataclasses.replace(source, shape=(h, w, deep))
        weights = self.weights(row, node, (1, 1, deep, made))
        self.make(node, "FullyConnected", source, weights=weights, shape=(h, w, made))

    def _transpose_conv(self, row: int, node: Node, source: View) -> None:
        kh, kw, deep, made = node.kernel_shape
        weights, (sh, sw) = self.weights(row, node, (kh, kw, deep, made)), node.strides
        if self.chip.family == "u55":
            self.make(node, "Conv2D", source, weights=weights, kernel=(kh, kw), upscale="zeros")
            return
        out = self.area(node.output)
        steps, (h, w, c) = list[Step](), out.shape
        for y in range(sh):
            for x in range(sw):
                shape = (-(-(kh - y) // sh), -(-(kw - x) // sw), deep, made)
                values = weights.values
                own = dataclasses.replace(
                    weights, shape=shape,
                    values=None if values is None else np.ascontiguousarray(values[y::sh, x::sw]),
                )  # fmt: skip
                part = None if (y, x) == (0, 0) else (h - y, w - x, c)
                ofm = View(out.area, out.shape, part, (y, x, 0))
                steps.append(
                    Step(node.output, "Conv2D", source, ofm, kernel=shape[:2], weights=own, spread=sw)
                )
        out.area.makers += steps[::-1]
        self.views[node.output] = out

    # Pools, sums and products

    def _max_pool(self, row: int, node: Node, source: View) -> None:
        kind = "MaxPool" if node.op == "max_pool" else "AvgPool"
        self.make(node, kind, source, kernel=node.window, stride=node.strides)

    _avg_pool = _max_pool

    def _mean(self, row: int, node: Node, source: View) -> None:
        rows, columns = reduced(node, self.graph.shape(node.inputs[0]))
        h, w, c = source.shape
        if rows > _MEAN_ROWS and rows * columns <= _MEAN_PIXELS and rows > 1 and columns > 1:
            source, columns, rows = dataclasses.replace(source, shape=(1, h * w, c)), rows * columns, 1
            h, w = 1, h * w
        most = min(_MEAN_PIXELS // columns, rows, _MEAN_ROWS)
        made = (h // rows, w // columns, c)
        total: View | None = None
        for start in range(0, rows, most):
            tall = min(most, rows - start)
            part = None if tall == rows else (tall, w, c)
            ifm = View(source.area, source.shape, part, (start, 0, 0))
            ones = Weights(np.ones((tall, columns, 1, c), np.int8), (tall, columns, 1, c))
            own = View(Area(node.output, made, 32), made)
            self.emit(Step(node.output, "DepthwiseConv2D", ifm, own, kernel=(tall, columns), weights=ones))
            if total is not None:
                sums = View(Area(node.output, made, 32), made)
                self.emit(Step(node.output, "Add", total, sums, own))
                own = sums
            total = own
        assert total is not None
        self.make(node, "Mul", total, ifm2=self.known(node.output, (1, 1, 1), 32), shape=made)

    def _softmax(self, row: int, node: Node, source: View) -> None:
        out = self.area(node.output)
        for step in softmax(node.output, source, out, self.chip):
            self.emit(step)
        self.views[node.output] = out

    def _matmul(self, row: int, node: Node, source: View) -> None:
        second, out = self.views[node.inputs[1]], self.area(node.output)
        (batch, n), deep = (prod(self.graph.shape(node.output)[:-2]), out.shape[2]), source.shape[2]
        turned = View(Area(node.output, (batch, n, deep), second.area.bits), (batch, n, deep))
        self.emit(Step(node.output, "Transpose", second, turned, transpose="NHCW"))
        m = out.shape[1]
        scratch = Area(node.output, (1, m, deep), 32, linear=True) if self.chip.family == "u55" else None
        for b in range(batch):
            one = batch == 1
            ifm = source if one else View(source.area, source.shape, (1, m, deep), (b, 0, 0))
            ifm2 = turned if one else View(turned.area, turned.shape, (1, n, deep), (b, 0, 0))
            ofm = out if one else View(out.area, out.shape, (1, m, n), (b, 0, 0))
            self.emit(Step(node.output, "MatMul", ifm, ofm, ifm2, scratch=scratch))
        self.views[node.output] = out

    # Element-wise

    def _lookup(self, node: Node, source: View) -> None:
        if source.area.bits == 8:
            self.make(node, "LUT", source, table_bytes=_TABLE_BYTES)
        elif node.op in ("logistic", "tanh"):
            kind = "Sigmoid" if node.op == "logistic" else "Tanh"
            self.make(node, kind, source, scaled=True, table_bytes=self.wide_table)
        else:
            self.make(node, "LUT", source, table_bytes=_WIDE_TABLE_BYTES)

    def _clamp(self, row: int, node: Node, source: View) -> None:
        self.make(node, "Clamp", source)

    def _quantize(self, row: int, node: Node, source: View) -> None:
        self.make(node, "Quantize", source)

    def _prelu(self, row: int, node: Node, source: View) -> None:
        scaled = View(Area(node.output, source.area.shape, source.area.bits), source.shape)
        self.emit(Step(node.output, "Mul", source, scaled, self.views[node.inputs[1]]))
        self.make(node, "Maximum", source, ifm2=scaled)

    # Layout

    def _transpose(self, row: int, node: Node, source: View) -> None:
        letters = "NHWC"[4 - len(node.axes) :] if len(node.axes) <= 4 else ""
        order = "NHWC"[: 4 - len(node.axes)] + "".join(letters[a] for a in node.axes)
        self.make(node, "Transpose", source, transpose=order)

    def _resize(self, row: int, node: Node, source: View) -> None:
        out = hwc(self.graph.shape(node.output))
        if self.chip.family == "u85":
            self.make(node, "Resize", source, scale=(out[1], source.shape[1]))
            return
        near, doublings = node.mode.startswith("nearest"), round(log2(max(out[1] / source.shape[1], 2)))
        kernel = (1, 1) if near else (2, 2)
        for _ in range(doublings - 1):
            shape = (2 * source.shape[0], 2 * source.shape[1], source.shape[2])
            own = View(Area(node.output, shape, source.area.bits), shape)
            self.emit(Step(node.output, "AvgPool", source, own, kernel=kernel, upscale="nearest"))
            source = own
        self.make(node, "AvgPool", source, kernel=kernel, upscale="nearest")

    def _reshape(self, row: int, node: Node, source: View) -> None:
        shape = hwc(self.graph.shape(node.output))
        if copied_share(self.graph, node):
            copy = View(Area(node.output, source.shape, source.area.bits), source.shape)
            self.emit(Step(node.output, "MemoryCopy", source, copy))
            self.views[node.inputs[0]] = source = copy  # for all who read it
        source.area.result |= node.output in self.graph.outputs
        self.views[node.output] = View(source.area, shape, None, source.at)

    def _slice(self, row: int, node: Node, source: View) -> None:
        out = hwc(self.graph.shape(node.output))
        at = _hwc3([begin for begin, _ in node.spans])
        view = View(source.area, source.shape, out, at)
        if node.output in self.graph.outputs:
            self.make(node, "MemoryCopy", view)
        else:
            self.views[node.output] = view

    def _pad(self, row: int, node: Node, source: View) -> None:
        if not copied_share(self.graph, node):
            self.views[node.output] = source  # the convolutions that read it pad for themselves
            return
        out = self.area(node.output)
        h, w, c = out.shape
        (top, bottom), (left, right) = node.spans[-3], node.spans[-2]
        bands = [((top, w, c), (0, 0, 0)), ((bottom, w, c), (h - bottom, 0, 0))]
        bands += [((h, left, c), (0, 0, 0)), ((h, right, c), (0, w - right, 0))]
        for shape, at in bands:
            if prod(shape):
                fill = self.known(node.output, shape, out.area.bits)
                self.emit(Step(node.output, "MemoryCopy", fill, View(out.area, out.shape, shape, at)))
        self._write_into(node, [(node.inputs[0], (top, left, node.spans[-1][0]))], out)

    def _concat(self, row: int, node: Node, source: View) -> None:
        out, axis, at, parts = self.area(node.output), node.axis % len(self.graph.shape(node.output)), 0, []
        place = max(axis - len(self.graph.shape(node.output)) + 3, 0)
        for name in node.inputs:
            corner = [0, 0, 0]
            corner[place] = at
            parts.append((name, (corner[0], corner[1], corner[2])))
            at += hwc(self.graph.shape(name))[place]
        self._write_into(node, parts, out)

    def _write_into(self, node: Node, parts: list[tuple[str, Size]], out: View) -> None:
        """Writes tensors into a larger one: their makers do, or copies (MoveConcatSliceToProducer)."""
        moved = list[Step]()
        for name, at in parts:
            view = self.views[name]
            whole = view.part is None and view.shape == view.area.shape and len(view.area.makers) == 1
            maker = view.area.makers[0] if view.area.makers else None
            if whole and maker and maker.kind != HOST and self.uses[name] == 1 and maker.ofm.part is None:
                maker.ofm = View(out.area, out.shape, view.shape, at)
                moved.append(maker)
            else:
                step = Step(node.output, "MemoryCopy", view, View(out.area, out.shape, view.seen, at))
                self.emit(step)
        out.area.makers += moved[::-1]
        self.views[node.output] = out


def _hwc3(values: list[int]) -> Size:
    h, w, c = [0, 0, 0, *values][-3:]
    return h, w, c
