"""The program under construction while a .tflite file is read: names, formats, layouts, constants.

`read_operators` says what each operator means; `Step` is what it says it to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np

from research.graph.flat import Model, Operator, Quantisation
from research.graph.ir import Node, Op, Shape, Tensor
from research.graph.program import LIMITS, Affine, DType, IntegerWeights
from research.graph.shapes import output_shape

MOST_NUMBERS = (
    2**27
)  # weights that are looked at or converted; tensors of a hostile file may share their bytes
# Axes of a kernel in the file in our order, and the file's axis of the output channels.
LAYOUTS: Mapping[str, tuple[tuple[int, ...], int]] = MappingProxyType({
    "conv": ((1, 2, 3, 0), 0), "depthwise": ((1, 2, 0, 3), 3), "transpose_conv": ((1, 2, 3, 0), 0),
    "dense": ((1, 0), 0),
})  # fmt: skip


class Known(NamedTuple):
    """A tensor of the file whose numbers are known: a constant, or one made of a constant alone."""

    name: str
    data: np.ndarray
    quantisation: Quantisation | None = None


Value = str | Known  # a str is the name of a tensor of the graph


@dataclass
class Reading:
    """What was read so far. values: by index in the file; a tensor that nothing here makes has none."""

    model: Model
    names: Sequence[str]
    taken: set[str]
    values: dict[int, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    params: dict[str, np.ndarray] = field(default_factory=dict)
    scales: dict[str, Affine] = field(default_factory=dict)
    integers: dict[str, IntegerWeights] = field(default_factory=dict)
    paths: dict[tuple[str, str], str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    spent: int = 0

    def fresh(self, name: str) -> str:
        """A name that no tensor of the file or the graph has."""
        while True:
            self.counts[name] += 1
            if (found := f"{name}/{self.counts[name]}") not in self.taken:
                self.taken.add(found)
                return found

    def spend(self, data: np.ndarray) -> np.ndarray:
        """The array, after its numbers were counted."""
        self.spent += data.size
        if self.spent > MOST_NUMBERS:
            raise ValueError(f"the file makes more than {MOST_NUMBERS} weights of its bytes")
        return data

    def format(self, index: int) -> Affine | None:
        """Integer format of an activation of the file, None for float32. ValueError for any other type."""
        tensor = self.model.tensors[index]
        return (
            None
            if tensor.dtype == "float32"
            else affine(self.names[index], tensor.dtype, tensor.quantisation)
        )

    def register(self, name: str, shape: Shape, form: Affine | None) -> None:
        """Adds a tensor to the graph."""
        self.tensors[name] = Tensor(name, shape)
        if form is not None:
            self.scales[name] = form

    def add_input(self, index: int) -> None:
        """Adds an input of the network. ValueError where its size is open, but for the batch, or its type not read."""
        tensor, name = self.model.tensors[index], self.names[index]
        if any(s < 0 for s in tensor.signature[1:]):
            raise ValueError(
                f"input {name!r} of the .tflite file has the open shape {tensor.signature}: fix it"
            )
        self.register(name, tensor.shape, self.format(index))
        self.values[index] = name

    def tensor(self, value: Value) -> str:
        """The tensor of the graph that holds a value; a constant gets a node. ValueError for a type not read."""
        if isinstance(value, str) or value.name in self.tensors:
            return value if isinstance(value, str) else value.name
        name, data, path, form = value.name, value.data, value.name, None
        if data.dtype == np.float32:
            path = self.path(value, "plain", data)
        else:
            form = affine(name, data.dtype.name, value.quantisation)
            self.integers[name] = IntegerWeights(
                data, np.full(1, form.scale, np.float32), np.zeros(0, np.int32)
            )
        self.register(name, data.shape, form)
        self.nodes.append(Node("constant", (), name, kernel=path, kernel_shape=data.shape))
        return name

    def path(self, value: Known, layout: str, data: np.ndarray) -> str:
        """Path of a float constant: its name; where another layout has that, with the layout after it."""
        key = value.name, layout
        if key not in self.paths:
            if data.dtype != np.float32 or not np.isfinite(self.spend(data)).all():
                raise ValueError(
                    f"the constant {value.name!r} is {data.dtype.name}, not float32, or not finite"
                )
            path = self.fresh(f"{value.name}/{layout}") if value.name in self.params else value.name
            self.paths[key], self.params[path] = path, data
        return self.paths[key]


def affine(name: str, dtype: str, quantisation: Quantisation | None) -> Affine:
    """The one format of an integer tensor. ValueError, naming it, for other types, more scales and wild zero points."""
    if dtype not in LIMITS or quantisation is None or quantisation.scale.size != 1:
        known = "float32, or int8, uint8 and int16 with one scale"
        raise ValueError(f"tensor {name!r} of the .tflite file is {dtype}; read are {known}")
    scale, zero = float(quantisation.scale[0]), int(quantisation.zero_point[0])
    low, high = (0, 0) if dtype == "int16" else LIMITS[dtype]
    if not (low <= zero <= high and 2.0**-60 < scale < 2.0**60):  # products and quotients stay finite
        raise ValueError(
            f"tensor {name!r} of the .tflite file is {dtype} with scale {scale:g}, zero point {zero}"
        )
    return Affine(scale, zero, cast(DType, dtype))


class Step(NamedTuple):
    """One operator of the file while it is read: its inputs, its options, the nodes it becomes."""

    reading: Reading
    operator: Operator

    def value(self, position: int) -> Value:
        """An input. ValueError where it is left out or was made by an operator that is not read."""
        r, inputs = self.reading, self.operator.inputs
        index = inputs[position] if position < len(inputs) else -1
        if index not in r.values:
            made = f"{r.names[index]!r}, {r.model.tensors[index].dtype} that no operation here makes"
            raise ValueError(f"it reads {made}" if index >= 0 else f"it has no input {position}")
        return r.values[index]

    def optional(self, position: int) -> Value | None:
        """An input, None where it is left out."""
        inputs = self.operator.inputs
        return self.value(position) if position < len(inputs) and inputs[position] >= 0 else None

    def constant(self, position: int) -> Known:
        """An input that must be a constant."""
        value = self.value(position)
        if isinstance(value, str):
            raise ValueError(
                f"its input {value!r} is computed while the network runs; only a constant is read"
            )
        return value

    def whole(self, position: int) -> list[int]:
        """The whole numbers of a constant input: axes, sizes, pads."""
        data = self.constant(position).data
        if data.dtype.kind not in "iu" or data.size > 64:
            raise ValueError(
                f"its input {position} is {data.dtype.name} {data.shape}, not a few whole numbers"
            )
        return [int(n) for n in data.reshape(-1)]

    def option(self, field: int, default: int = 0, code: str = "i") -> int:
        """A whole number of the options; code: of `struct`."""
        return (
            default if self.operator.options is None else self.operator.options.integer(field, code, default)
        )

    def flag(self, field: int, default: int = 0) -> int:
        """A byte or bool of the options."""
        return self.option(field, default, "b")

    def shape(self, value: Value) -> Shape:
        """Shape of a value."""
        return self.reading.tensors[value].shape if isinstance(value, str) else value.data.shape

    def recorded(self, position: int = 0) -> Shape:
        """Shape that the file records for an output."""
        return self.reading.model.tensors[self.operator.outputs[position]].shape

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Axes counted from the front. ValueError for one that is not there or there twice."""
        found = tuple(a + rank if a < 0 else a for a in axes)
        if any(not 0 <= a < rank for a in found) or len(set(found)) != len(found):
            raise ValueError(f"its axes {tuple(axes)} are not those of a tensor of rank {rank}")
        return found

    def make(
        self, op: Op, inputs: Sequence[Value], shape: Shape | None = None, *, out: int = 0, step: bool = False,
        integers: IntegerWeights | None = None, **attributes: Any,
    ) -> str:  # fmt: skip
        """Appends the node that makes output number `out`; returns its tensor.

        shape: what the operation makes, if not what the file records: then a reshape to that follows. step: it
        makes a tensor on the way there, in the format of its first input. integers: of a layer.
        ValueError where the inputs do not fit the operation, the shape or one another in type.
        """
        r, index = self.reading, self.operator.outputs[out]
        names, recorded = tuple(r.tensor(v) for v in inputs), self.recorded(out)
        wanted = recorded if shape is None else shape
        last = wanted == recorded and not step
        form = r.scales.get(names[0]) if step else r.format(index)
        name = r.names[index] if last else r.fresh(r.names[index])
        node = Node(op, names, name, **attributes)
        made = output_shape(node, tuple(self.shape(n) for n in names), wanted)
        if made != wanted:
            raise ValueError(f"it makes {made}, the file says {wanted}")
        kinds = [f.dtype if f else "float32" for f in (*map(r.scales.get, names), form)]
        if "uint8" in kinds and op != "quantize":
            raise ValueError("it computes in uint8, the old quantisation; convert the network again, to int8")
        if len(set(kinds)) > 1 and op != "quantize":
            raise ValueError(f"it mixes {' and '.join(dict.fromkeys(kinds))}")
        r.register(name, wanted, form)
        r.nodes.append(node)
        if integers is not None:
            r.integers[name] = integers
        return name if last or step else self.make("reshape", [name], out=out)

    def layer(
        self, op: Op, x: Value, kernel: Known, bias: Value | None, shape: Shape | None = None, **attributes: Any
    ) -> str:  # fmt: skip
        """`make` for a node with weights, which are turned to our layout. ValueError for weights that are not read."""
        r, (axes, channel_axis), quantisation = self.reading, LAYOUTS[op], kernel.quantisation
        if kernel.data.ndim != len(axes) or isinstance(bias, str):
            raise ValueError(f"its kernel has shape {kernel.data.shape} or its bias is no constant")
        data, source = kernel.data.transpose(axes), r.scales.get(r.tensor(x))
        if bias is not None and bias.data.size != data.shape[-1]:
            raise ValueError(f"its bias has {bias.data.size} numbers for {data.shape[-1]} channels")
        if source is None:
            if data.dtype == np.int8:
                raise ValueError("it has int8 weights and float activations (dynamic range), which LiteRT rounds while"
                                 " it runs; convert the network with float weights or to full integers")  # fmt: skip
            path = None if bias is None else r.path(bias, "plain", bias.data)
            attributes |= {"kernel": r.path(kernel, op, data), "kernel_shape": data.shape, "bias": path}
            return self.make(op, [x], shape, **attributes)
        wide = source.dtype == "int16"
        offsets = (
            np.zeros(data.shape[-1], np.int64 if wide else np.int32)
            if bias is None
            else bias.data.reshape(-1)
        )
        if quantisation is None or data.dtype != np.int8 or quantisation.zero_point.any():
            if source.dtype != "uint8":  # which `make` refuses
                raise ValueError(
                    f"its weights are {data.dtype.name}; read is int8 with scales and zero points of 0"
                )
        elif quantisation.scale.size > 1 and quantisation.axis != channel_axis:
            raise ValueError(f"its scales lie along axis {quantisation.axis}, not along the output channels")
        if offsets.dtype.name not in (("int32", "int64") if wide else ("int32",)):
            raise ValueError(f"its bias is {offsets.dtype.name}")
        scale = np.ones(1, np.float32) if quantisation is None else quantisation.scale
        attributes |= {"kernel": kernel.name, "kernel_shape": data.shape, "bias": bias.name if bias else None}
        return self.make(op, [x], shape, integers=IntegerWeights(data, scale, offsets), **attributes)

    def moved(self, value: Known, data: np.ndarray) -> Known:
        """A constant after its numbers were moved. ValueError where its scales would have to move with them."""
        if value.quantisation is not None and value.quantisation.scale.size > 1:
            raise ValueError(f"it moves the constant {value.name!r}, which has more than one scale")
        return Known(self.reading.fresh(value.name), data, value.quantisation)

    def reshape(self, value: Value, shape: Shape | None = None) -> Value:
        """The same numbers in the shape of the output, or in another one on the way there."""
        wanted = self.recorded() if shape is None else shape
        if isinstance(value, str):
            return self.make("reshape", [value], shape, step=shape is not None)
        if prod(wanted) != value.data.size:
            raise ValueError(f"{value.data.shape} and {wanted} differ in size")
        return self.moved(value, value.data.reshape(wanted))

    def cut(self, value: Value, spans: Sequence[tuple[int, int]], shape: Shape, out: int = 0) -> Value:
        """The box of `shape` entries from begin on, stride apart, in the shape the file records for its output."""
        rows = self.shape(value)[:1]
        if rows > (1,) == shape[:1] and spans[0][0] == 0:
            spans = [(0, rows[0]), *spans[1:]]  # (0, 1) of one entry would be the whole batch
        return self.make("slice", [value], shape, out=out, spans=tuple(spans))
