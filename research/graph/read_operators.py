"""What the operators of a .tflite file mean in the graph: one rule each, by TFLite's name.

A rule takes a `Step`, appends the nodes the operator becomes and returns the values of its outputs, in order.
Options are read by their field numbers in TensorFlow Lite's schema.fbs, version 3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite, log2, prod
from types import MappingProxyType
from typing import Any

import numpy as np

from research.graph.ir import Activation, Op, Padding
from research.graph.reading import Known, Step, Value
from research.graph.shapes import window_size

Rule = Callable[[Step], Value | list[Value]]
ACTIVATIONS: tuple[Activation, ...] = ("none", "relu", "relu_n1_to_1", "relu6")  # ActivationFunctionType
PADDINGS: tuple[Padding, ...] = ("SAME", "VALID")
TRANSPOSE_WITH_BIAS = "Convolution2DTransposeBias"  # of MediaPipe


def _activation(s: Step, field: int) -> Activation:
    number = s.flag(field)
    if not 0 <= number < len(ACTIVATIONS):
        raise ValueError(f"it has the fused activation {number}; only {', '.join(ACTIVATIONS)} are read")
    return ACTIVATIONS[number]


def _padding(number: int) -> Padding:
    if not 0 <= number < len(PADDINGS):
        raise ValueError(f"it has the padding {number}, neither SAME nor VALID")
    return PADDINGS[number]


def _window(s: Step, x: Value, window: Sequence[int], dilation: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    """Padding (field 0) and strides (1, 2) of a window. ValueError for sizes below 1 or far beyond the image."""
    shape, strides = s.shape(x), (s.option(2), s.option(1))
    if len(shape) != 4 or len(window) != 2 or min(*window, *strides, *dilation) < 1:
        raise ValueError(
            f"its window {tuple(window)}, strides {strides}, dilation {dilation} do not fit {shape}"
        )
    if any((w - 1) * d > 8 * size + 64 for size, w, d in zip(shape[1:3], window, dilation, strict=True)):
        raise ValueError(f"its window {tuple(window)}, {dilation} apart, is far larger than {shape}")
    return {"padding": _padding(s.flag(0)), "strides": strides}


def _conv(op: Op, fused: int) -> Rule:
    """fused: field of the activation; those of the dilation along columns and rows come after it."""

    def rule(s: Step) -> Value:
        x, kernel, dilation = s.value(0), s.constant(1), (s.option(fused + 2, 1), s.option(fused + 1, 1))
        attributes = _window(s, x, kernel.data.shape[1:3], dilation)
        activation = _activation(s, fused)
        return s.layer(op, x, kernel, s.optional(2), dilation=dilation, activation=activation, **attributes)

    return rule


def _transposed(s: Step, x: Value, kernel: Known, bias: Value | None, **attributes: Any) -> Value:
    image, out, window = s.shape(x), s.recorded(), kernel.data.shape[1:3]
    strides, padding = attributes["strides"], attributes["padding"]
    fits = len(image) == len(out) == kernel.data.ndim == 4 and min(strides) > 0
    if not fits or any(
        window_size(out[1 + a], window[a], strides[a], 1, padding) != image[1 + a] for a in (0, 1)
    ):
        raise ValueError(f"it does not make {out} of {image} with a window {window} and strides {strides}")
    return s.layer("transpose_conv", x, kernel, bias, **attributes)


def _transpose_conv(s: Step) -> Value:
    shape, attributes = s.value(0), _window(s, s.value(2), s.constant(1).data.shape[1:3])
    if isinstance(shape, Known) and tuple(s.whole(0)) != s.recorded():
        raise ValueError(f"it makes {s.whole(0)}, the file says {s.recorded()}")
    return _transposed(
        s, s.value(2), s.constant(1), s.optional(3), activation=_activation(s, 3), **attributes
    )


def _custom(s: Step) -> Value:
    """MediaPipe's transposed convolution with a bias, whose options are the struct TfLiteTransposeConvParams."""
    options = s.operator.custom_options
    if s.operator.custom != TRANSPOSE_WITH_BIAS or len(options) < 12:
        raise ValueError(
            f"the custom operator {s.operator.custom!r} is not known, only {TRANSPOSE_WITH_BIAS!r} is"
        )
    padding, columns, rows = struct.unpack("<3i", options[:12])
    attributes = {"strides": (rows, columns), "padding": _padding(padding - 1)}
    return _transposed(s, s.value(0), s.constant(1), s.optional(2), **attributes)


def _dense(s: Step) -> Value:
    x, kernel = s.value(0), s.constant(1)
    shape, (width, depth) = s.shape(x), (*kernel.data.shape, 1, 1)[:2]
    if s.flag(1) or kernel.data.ndim != 2 or prod(shape) % depth:
        raise ValueError(f"its weights {kernel.data.shape} do not fit {shape} or are shuffled")
    made = (*shape[:-1], width)
    if shape[-1:] != (depth,) or made != s.recorded():
        made = (prod(shape) // depth, width)
        x = x if shape == (made[0], depth) else s.reshape(x, (made[0], depth))
    return s.layer("dense", x, kernel, s.optional(2), made, activation=_activation(s, 0))


def _pool(op: Op) -> Rule:
    def rule(s: Step) -> Value:
        x, window = s.value(0), (s.option(4), s.option(3))
        return s.make(op, [x], window=window, activation=_activation(s, 5), **_window(s, x, window))

    return rule


def _binary(op: Op, fused: bool = False) -> Rule:
    def rule(s: Step) -> Value:
        made = s.make(op, [s.value(0), s.value(1)], activation=_activation(s, 0) if fused else "none")
        scales, inputs = s.reading.scales, s.reading.nodes[-1].inputs
        if op in ("add", "sub") and made in scales and scales[made].dtype == "int16" and s.flag(1, 1):
            logs = [log2(scales[t].scale) for t in (*inputs, made)]
            if all(abs(log - round(log)) < 1e-3 for log in logs):
                raise ValueError("its int16 scales are powers of two, for which LiteRT has other arithmetic")
        return made

    return rule


def _unary(op: Op, alpha: bool = False, **attributes: Any) -> Rule:
    """alpha: a number of the options, field 0."""

    def rule(s: Step) -> Value:
        given = dict[str, Any](attributes)
        if alpha:
            given["alpha"] = 0.0 if s.operator.options is None else s.operator.options.number(0, "f")
            if not isfinite(given["alpha"]):
                raise ValueError("one of its options is not finite")
        return s.make(op, [s.value(0)], **given)

    return rule


def _float_only(s: Step) -> None:
    if s.reading.format(s.operator.outputs[0]):
        raise ValueError("only its float kernel is read")


def _squared_difference(s: Step) -> Value:
    _float_only(s)
    return s.make("square", [s.make("sub", [s.value(0), s.value(1)], s.recorded(), step=True)])


def _reduce(s: Step) -> Value:
    """MEAN, SUM as mean times count, and REDUCE_MAX over rows and columns as a pool."""
    x, code = s.value(0), s.operator.code
    shape = s.shape(x)
    axes = s.axes(s.whole(1), len(shape))
    kept = tuple(1 if a in axes else size for a, size in enumerate(shape))
    if s.recorded() not in (kept, tuple(size for a, size in enumerate(shape) if a not in axes)):
        raise ValueError(f"it does not reduce {shape} over {axes} to {s.recorded()}")
    if code == "MEAN":
        return s.make("mean", [x], axes=axes)
    if code == "REDUCE_MAX" and sorted(axes) == [1, 2] and len(shape) == 4:
        return s.make("max_pool", [x], kept, window=shape[1:3])
    if code == "REDUCE_MAX":
        raise ValueError(
            f"it reduces {shape} over {axes}; read is the maximum over rows and columns of an image"
        )
    _float_only(s)
    mean = s.make("mean", [x], s.recorded(), step=True, axes=axes)
    count = Known(s.reading.fresh(mean), np.asarray(prod(shape[a] for a in axes), np.float32))
    return s.make("mul", [mean, count])


def _matmul(s: Step) -> Value:
    operands = [s.value(0), s.value(1)]
    for position in (0, 1):
        if s.flag(position):
            shape = s.shape(operands[position])
            order = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
            turned = tuple(shape[a] for a in order)
            operands[position] = s.make("transpose", [operands[position]], turned, step=True, axes=order)
    return s.make("matmul", operands)


def _concat(s: Step) -> Value:
    inputs = [s.value(i) for i in range(len(s.operator.inputs))]
    if not inputs or _activation(s, 1) != "none":
        raise ValueError("it has no input or a fused activation")
    return s.make("concat", inputs, axis=s.axes([s.option(0)], len(s.shape(inputs[0])))[0])


def _pack(s: Step) -> Value:
    shape = s.recorded()
    (axis,) = s.axes([s.option(1)], len(shape))
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    return s.make("concat", [s.reshape(s.value(i), one) for i in range(len(s.operator.inputs))], axis=axis)


def _parts(value: int, axis: int) -> Rule:
    """SPLIT, SPLIT_V and UNPACK: what stands at input `value`, cut along the axis at input `axis` (-1: an option)."""

    def rule(s: Step) -> list[Value]:
        x, made, begin = s.value(value), list[Value](), 0
        shape = s.shape(x)
        (at,) = s.axes([s.option(1)] if axis < 0 else s.whole(axis), len(shape))
        for out in range(len(s.operator.outputs)):
            count = 1 if axis < 0 else (*s.recorded(out), *shape)[at]
            spans = [(begin if a == at else 0, 1) for a in range(len(shape))]
            made.append(s.cut(x, spans, (*shape[:at], count, *shape[at + 1 :]), out))
            begin += count
        if begin != shape[at]:
            raise ValueError(f"its outputs have {begin} of {shape[at]} entries along axis {at}")
        return made

    return rule


def _slice(s: Step) -> Value:
    return s.cut(s.value(0), [(begin, 1) for begin in s.whole(1)], s.recorded())


def _gather(s: Step) -> Value:
    """Indices that are evenly spaced, or one: a slice."""
    x, indices = s.value(0), s.whole(1)
    shape = s.shape(x)
    (axis,), step = s.axes([s.option(0)], len(shape)), indices[1] - indices[0] if len(indices) > 1 else 1
    if (
        s.option(1)
        or not indices
        or not step
        or indices != [indices[0] + step * i for i in range(len(indices))]
    ):
        raise ValueError(f"it gathers {indices}; read are evenly spaced indices, without batch dimensions")
    spans = [(indices[0], step) if a == axis else (0, 1) for a in range(len(shape))]
    return s.cut(x, spans, (*shape[:axis], len(indices), *shape[axis + 1 :]))


def _strided_slice(s: Step) -> Value:
    """numpy's basic indexing: bits of the masks say what an entry of begin, end and strides means."""
    x, given = s.value(0), list(zip(s.whole(1), s.whole(2), s.whole(3), strict=True))
    masks = [s.option(field) for field in range(5)]
    sizes, spans, shape = s.shape(x), list[tuple[int, int]](), list[int]()
    spare = len(sizes) - sum(not (masks[2] | masks[3]) >> i & 1 for i in range(len(given)))
    for i, (begin, end, stride) in enumerate(given):
        no_begin, no_end, ellipsis, new_axis, shrink = (mask >> i & 1 for mask in masks)
        axis = len(spans)
        if ellipsis:
            spans += [(0, 1)] * spare
            shape += sizes[axis : axis + spare]
        elif not new_axis:
            if axis >= len(sizes) or not stride:
                raise ValueError(f"it cuts axis {axis} of {sizes} with stride {stride}")
            stop = begin + end if s.flag(5) else end
            found = range(
                *slice(None if no_begin else begin, None if no_end else stop, stride).indices(sizes[axis])
            )
            if shrink:
                found = (
                    range(begin % sizes[axis], begin % sizes[axis] + 1)
                    if -sizes[axis] <= begin
                    else range(begin)
                )
            spans.append((found.start, found.step if len(found) > 1 else 1))
            shape.append(len(found))
    spans += [(0, 1)] * (len(sizes) - len(spans))
    return s.cut(x, spans, (*shape, *sizes[len(shape) :]))


def _transpose(s: Step) -> Value:
    x = s.value(0)
    axes = s.axes(s.whole(1), len(s.shape(x)))
    if isinstance(x, Known) and len(axes) == x.data.ndim:
        return s.moved(x, x.data.transpose(axes))
    return s.make("transpose", [x], axes=axes)


def _pad(s: Step) -> Value:
    pads, value = s.whole(1), 0.0
    if s.operator.code == "PADV2":
        data, form = s.constant(2).data, s.reading.format(s.operator.outputs[0])
        if data.size != 1 or data.dtype != (form.dtype if form else "float32") or np.isnan(data).any():
            raise ValueError(f"it pads with {data.dtype.name} {data.shape}")
        value = float((form.real(data) if form else data).reshape(-1)[0])
    return s.make("pad", [s.value(0)], spans=tuple(zip(pads[::2], pads[1::2], strict=False)), alpha=value)


def _resize(how: str, corners: int) -> Rule:
    """corners: field of align_corners; that of half_pixel_centers comes after it."""

    def rule(s: Step) -> Value:
        align, half = s.flag(corners), s.flag(corners + 1)
        if (align and half) or (isinstance(s.value(1), Known) and tuple(s.whole(1)) != s.recorded()[1:3]):
            raise ValueError(
                f"it has another size than {s.recorded()}, or both align_corners and half_pixel_centers"
            )
        mode = how + ("/align_corners" if align else "/half_pixel" if half else "")
        return s.make("resize", [s.value(0)], mode=mode)

    return rule


def _blocks(s: Step) -> Value:
    """DEPTH_TO_SPACE, and SPACE_TO_DEPTH as two reshapes and a transpose."""
    x, block = s.value(0), s.option(0)
    shape = s.shape(x)
    if len(shape) != 4 or block < 1:
        raise ValueError(f"blocks of {block} do not fit {shape}")
    if s.operator.code == "DEPTH_TO_SPACE":
        return s.make("depth_to_space", [x], window=(block, block))
    split = (shape[0], shape[1] // block, block, shape[2] // block, block, shape[3])
    turned = tuple(split[a] for a in (0, 1, 3, 2, 4, 5))
    x = s.make("transpose", [s.reshape(x, split)], turned, step=True, axes=(0, 1, 3, 2, 4, 5))
    return s.reshape(x)


def _dequantize(s: Step) -> Value:
    """Of a constant: its real values, under its own name; weights stored in float16 or int8 are read so."""
    x = s.value(0)
    if not isinstance(x, Known):
        return s.make("quantize", [x])
    data = s.reading.spend(x.data).astype(np.float32)
    if x.quantisation is not None and x.data.dtype.kind in "iu":
        scale, zero, axis = x.quantisation
        rows = [-1 if a == axis and scale.size > 1 else 1 for a in range(data.ndim)]
        data = (data - zero.astype(np.float32).reshape(rows)) * scale.reshape(rows)
    elif x.data.dtype.kind != "f":
        raise ValueError(f"the constant {x.name!r} is {x.data.dtype.name} without a scale")
    return Known(x.name, data)


OPERATORS: Mapping[str, Rule] = MappingProxyType({
    "CONV_2D": _conv("conv", 3), "DEPTHWISE_CONV_2D": _conv("depthwise", 4),
    "TRANSPOSE_CONV": _transpose_conv, "CUSTOM": _custom, "FULLY_CONNECTED": _dense,
    "AVERAGE_POOL_2D": _pool("avg_pool"), "MAX_POOL_2D": _pool("max_pool"),
    "ADD": _binary("add", True), "SUB": _binary("sub", True), "MUL": _binary("mul", True),
    "DIV": _binary("div", True), "MAXIMUM": _binary("maximum"), "MINIMUM": _binary("minimum"),
    "PRELU": _binary("prelu"), "SQUARED_DIFFERENCE": _squared_difference, "BATCH_MATMUL": _matmul,
    "RELU": _unary("clamp", bounds=(0.0, inf)), "RELU6": _unary("clamp", bounds=(0.0, 6.0)),
    "RELU_N1_TO_1": _unary("clamp", bounds=(-1.0, 1.0)), "RELU_0_TO_1": _unary("clamp", bounds=(0.0, 1.0)),
    "LOGISTIC": _unary("logistic"), "TANH": _unary("tanh"), "HARD_SWISH": _unary("hard_swish"),
    "EXP": _unary("exp"), "SQRT": _unary("sqrt"), "RSQRT": _unary("rsqrt"), "NEG": _unary("neg"),
    "ABS": _unary("abs"), "SQUARE": _unary("square"), "QUANTIZE": _unary("quantize"),
    "SOFTMAX": _unary("softmax", True), "LEAKY_RELU": _unary("leaky_relu", True),
    "DEQUANTIZE": _dequantize, "DENSIFY": lambda s: s.constant(0), "MEAN": _reduce,
    "SUM": _reduce, "REDUCE_MAX": _reduce, "CONCATENATION": _concat, "PACK": _pack,
    "UNPACK": _parts(0, -1), "SPLIT": _parts(1, 0), "SPLIT_V": _parts(0, 2), "SLICE": _slice,
    "GATHER": _gather, "STRIDED_SLICE": _strided_slice, "TRANSPOSE": _transpose, "PAD": _pad,
    "PADV2": _pad, "RESIZE_BILINEAR": _resize("bilinear", 2), "SPACE_TO_DEPTH": _blocks,
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest", 0), "DEPTH_TO_SPACE": _blocks,
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), lambda s: s.reshape(s.value(0))),
})  # fmt: skip


def apply(s: Step) -> None:
    """Appends the nodes of one operator. ValueError for one that is not read, with the reason."""
    r, operator = s.reading, s.operator
    outputs = [r.model.tensors[i] for i in operator.outputs]
    if all(t.dtype in ("int32", "int64") and t.quantisation is None for t in outputs):
        return  # sizes, which the file records; whatever else reads them says so
    if operator.code not in OPERATORS:
        raise ValueError("there is no such operation here; convert the network without it")
    made = OPERATORS[operator.code](s)
    values = made if isinstance(made, list) else [made]
    if len(values) != len(outputs):
        raise ValueError(f"it makes {len(values)} tensors, the file says {len(outputs)}")
    r.values.update(zip(operator.outputs, values, strict=True))
