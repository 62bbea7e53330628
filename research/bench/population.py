"""Networks no one tuned on, made afresh from a seed, single edits of them, and single layers.

Ranges, at least those of the set that the design was made with. Networks: inputs of 64 to 160 px with 1 or 3
channels, 9 to about 90 operations, 8 to 1536 channels, 3 to 150 MMACs, less than 3 M weights; inverted residuals,
fused and plain convolutions, depthwise-separable blocks, squeeze-excite, attention, pools, concatenations,
explicit pads, transposed convolutions, dense and heat-map heads; dense, randomly pruned and 2:4 weights of
standard deviation 16 to 48; int8, int16 and both. Layers: maps of 4 to 80 px (stems to 128, rows and columns apart
in a fifth), 8 to 320 channels (1, 3 and 4 at stems), odd widths in 15 %, kernels 1, 2, 3 and 5, strides 1 and 2,
dense from 32 to 1024 down to 16 to 256, products of 16 to 144 rows; alone (both sides NHWC) or between
convolutions (both in bricks).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from research.bench.recipes import Layer, Made, Recipe, Zeros, skeleton
from research.graph.ir import Activation, Op

# No 16-bit kernel, or none on every chip.
_INT8_ONLY = ("matmul", "hard_swish", "leaky_relu", "transpose_conv")
EDITS = ("wider", "narrower", "kernel", "2:4", "int16")
KINDS = frozenset({
    "conv", "depthwise", "transpose_conv", "dense", "matmul", "add", "mul", "concat", "pad", "reshape", "transpose",
    "max_pool", "avg_pool", "mean", "resize", "softmax", "logistic", "hard_swish", "leaky_relu", "quantize",
})  # fmt: skip


def kinds(made: Made) -> set[str]:
    """The operations of a network, "quantize" where two number formats meet."""
    bits = {layer.bits for layer in made.recipe}
    return {node.op for node in made.graph.nodes} | ({"quantize"} if len(bits) > 1 else set())


# Networks


class _Grower:
    """Appends layers to a recipe and follows rows and channels of the newest one."""

    def __init__(self, rng: np.random.Generator, zeros: str, bits: int) -> None:
        self.rng, self.zeros, self.bits, self.layers = rng, zeros, bits, list[Layer]()

    def add(self, op: Op, *inputs: str, **fields: Any) -> str:
        name = f"n{len(self.layers):03d}_{op}"
        bits = 8 if op in _INT8_ONLY else self.bits
        self.layers.append(Layer(op, name, inputs, **{"bits": bits, **fields}))
        return name

    def pattern(self) -> Zeros:
        if self.zeros == "some 2:4":
            return "2:4" if self.rng.random() < 0.5 else "none"
        return "2:4" if self.zeros == "all 2:4" else "half" if self.zeros == "half" else "none"

    def conv(self, x: str, width: int, kernel: int = 1, stride: int = 1, act: Activation = "relu6") -> str:
        fields = {"kernel": kernel, "stride": stride, "act": act, "zeros": self.pattern()}
        return self.add("conv", x, width=width, **fields)

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]


def _block(g: _Grower, kind: str, x: str, width: int, out: int, stride: int) -> str:
    kernel, factor = g.pick(3, 3, 5), g.pick(2, 3, 4, 4, 6)
    match kind:
        case "inverted":
            act = g.pick("relu6", "relu6", "relu6", "none")
            y = g.conv(x, width * factor, act=act)
            y = g.add("hard_swish" if g.chance(0.7) else "leaky_relu", y) if act == "none" else y
            y = g.add("depthwise", y, kernel=kernel, stride=stride, act="relu6")
            if g.chance(0.15):
                gate = g.add("mean", y, mode="keep")
                gate = g.conv(gate, max(8, width * factor // 4), act="relu")
                y = g.add("mul", y, g.add("logistic", g.conv(gate, width * factor, act="none")))
            return g.conv(y, out, act="none")
        case "fused":
            return g.conv(g.conv(x, width * min(factor, 4), 3, stride), out, act="none")
        case "separable":
            return g.conv(g.add("depthwise", x, kernel=kernel, stride=stride, act="relu6"), out)
        case "padded":
            y = g.add("pad", x, kernel=1)
            fields = {"kernel": 3, "stride": stride, "mode": "VALID", "act": "relu", "zeros": g.pattern()}
            return g.add("conv", y, width=out, **fields)
        case "branches":
            left, right = g.conv(x, out // 2, 3, stride), g.conv(x, out - out // 2, 1, stride)
            return g.add("concat", left, right)
    return g.conv(x, out, 3, stride)


def _attention(g: _Grower, x: str, pixels: int, channels: int) -> str:
    deep = g.pick(16, 32, 48, 64)
    query, key, value = (
        g.add("reshape", g.conv(x, deep, act="none"), like=(pixels * pixels, deep)) for _ in range(3)
    )
    weights = g.add("softmax", g.add("matmul", query, g.add("transpose", key)))
    mixed = g.add("reshape", g.add("matmul", weights, value), like=(pixels, pixels, deep))
    x = g.add("add", x, g.conv(mixed, channels, act="none"))
    return g.add("add", x, g.conv(g.conv(x, 2 * channels), channels, act="none"))


def random_recipe(seed: int) -> tuple[Recipe, float]:
    """The network of this seed and the spread of its int8 weights."""
    rng = np.random.default_rng(seed)
    precision = str(rng.choice(["int8"] * 6 + ["int16", "first", "some"]))
    zeros = str(rng.choice(["none", "none", "all 2:4", "some 2:4", "half"]))
    g = _Grower(rng, zeros, 16 if precision in ("int16", "first") else 8)
    family = g.pick(*["inverted"] * 4, *["mixed"] * 6, *["attention"] * 4, "plain", "large", "fused")
    size = 160 if family == "large" else g.pick(64, 96, 96, 112, 128, 128)
    g.layers.append(Layer("input", "image", like=(size, size, g.pick(1, 1, 3)), bits=g.bits))
    channels, pixels = g.pick(8, 16, 16, 24, 32), -(-size // 2)
    x = g.add("conv", "image", width=channels, kernel=3, stride=2, act="relu6")
    g.bits = 8 if precision == "first" else g.bits
    for _ in range(int(rng.integers(3, 6))):
        out = min(256, max(8, int(channels * rng.uniform(1.1, 2.0)) // 8 * 8))
        out += int(rng.integers(1, 8)) if g.chance(0.1) else 0
        stride = 2 if pixels > 6 and g.chance(0.85) else 1
        for i in range(int(rng.integers(1, 4))):
            step = stride if i == 0 else 1
            if i == 0 and stride == 2 and g.chance(0.2) and pixels % 2 == 0:
                x, step = g.add(g.pick("max_pool", "avg_pool"), x, kernel=g.pick(2, 3), stride=2), 1
                pixels //= 2
            mixture = ("inverted", "inverted", "fused", "separable", "plain", "padded", "branches")
            kind = {"inverted": "inverted", "large": "inverted", "attention": "inverted"}.get(family, family)
            before, old = x, g.bits
            g.bits = 16 if precision == "some" and g.chance(0.15) else g.bits
            y = _block(g, g.pick(*mixture) if family == "mixed" else kind, x, channels, out, step)
            x = g.add("add", before, y) if step == 1 and out == channels and g.chance(0.8) else y
            g.bits, channels, pixels = old, out, -(-pixels // step) if step == 2 else pixels
    if family == "attention" and pixels <= 24:
        for _ in range(int(rng.integers(1, 3))):
            x = _attention(g, x, pixels, channels)
    _head(g, x, pixels)
    return tuple(g.layers), float(g.pick(16, 24, 32, 32, 32, 48))


def _head(g: _Grower, x: str, pixels: int) -> None:
    if g.chance(0.55):
        x = g.add("mean", g.conv(x, g.pick(128, 192, 256, 320)))
        if g.chance(0.4):
            x = g.add("dense", x, width=g.pick(64, 128), act="relu", zeros=g.pattern())
        g.add("dense", x, width=63, zeros=g.pattern())
        return
    for _ in range(2):
        if pixels <= 32:
            up = g.pick("nearest", "bilinear", "transpose_conv")
            if up == "transpose_conv":
                x = g.add("transpose_conv", x, width=g.pick(24, 32), kernel=2, stride=2)
            else:
                x = g.add("resize", x, mode=up)
            pixels *= 2
        x = g.conv(x, g.pick(24, 32, 48), 3)
    x = g.conv(x, 21, act="none")
    if g.chance(0.3):
        g.add("logistic", x)


def networks(
    seed: int, count: int, *, least: float = 3e6, most: float = 150e6
) -> list[tuple[Recipe, int, float]]:
    """`count` recipes of between `least` and `most` MACs, each with the seed and the spread of its weights."""
    found, number = list[tuple[Recipe, int, float]](), 0
    while len(found) < count:
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        number += 1
        recipe, spread = random_recipe(own)
        graph = skeleton(recipe)
        weights = sum(prod(node.kernel_shape) for node in graph.nodes)
        if least <= graph.total_macs <= most and weights < 3e6:
            found.append((recipe, own, spread))
    return found


# Single edits


def edit(recipe: Recipe, kind: str, rng: np.random.Generator) -> Recipe | None:
    """The recipe with one layer changed (`kind` of `EDITS`), None where no layer can be changed so."""
    changes: dict[str, Callable[[Layer], Layer | None]] = {
        "wider": lambda x: dataclasses.replace(x, width=x.width + 8) if x.op == "conv" else None,
        "narrower": lambda x: (
            dataclasses.replace(x, width=x.width - 8) if x.op == "conv" and x.width > 8 else None
        ),
        "kernel": _other_kernel,
        "2:4": lambda x: (
            dataclasses.replace(x, zeros="none" if x.zeros == "2:4" else "2:4")
            if x.op in ("conv", "dense") and x.inputs != (recipe[0].name,)
            else None
        ),
        "int16": lambda x: (
            dataclasses.replace(x, bits=24 - x.bits) if x.op in ("conv", "depthwise", "dense") else None
        ),
    }
    for index in rng.permutation(len(recipe)).tolist():
        changed = changes[kind](recipe[index])
        if changed is None:
            continue
        edited = (*recipe[:index], changed, *recipe[index + 1 :])
        try:
            skeleton(edited)
        except ValueError:
            continue
        return edited
    return None


def _other_kernel(layer: Layer) -> Layer | None:
    other = {("depthwise", 3): 5, ("depthwise", 5): 3, ("conv", 3): 1, ("conv", 1): 3}
    kernel = other.get((layer.op, layer.kernel))
    return None if kernel is None or layer.mode else dataclasses.replace(layer, kernel=kernel)


# Single layers


def random_layer(seed: int) -> tuple[Recipe, str, float]:
    """One layer named "layer", alone or between two 1x1 convolutions; its kind; the spread of its weights."""
    rng = np.random.default_rng(seed)
    g = _Grower(rng, "none", 16 if rng.random() < 0.15 else 8)
    kind = g.pick(
        *["conv 1x1"] * 7, *["conv 3x3"] * 5, "conv 5x5", "stem", *["depthwise 3x3"] * 5, *["depthwise 5x5"] * 2,
        *["dense"] * 3, *["add"] * 2, *["mul"] * 2, "avg_pool", "max_pool", "mean", "resize", "hard_swish", "logistic",
        "softmax", "matmul",
    )  # fmt: skip
    sizes = (4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80)
    rows = g.pick(*sizes)
    columns = rows if g.chance(0.8) else g.pick(4, 8, 16, 32, 64)
    width = _width(g)
    zeros: Zeros = g.pick("none", "none", "none", "2:4", "2:4", "half", "three quarters")
    op: Op = kind.split(" ")[0] if kind != "stem" else "conv"
    fields: dict[str, Any] = {}
    if op == "conv":
        kernel = 3 if kind == "stem" else int(kind[5])
        stride = 2 if kind == "stem" or (kernel > 1 and g.chance(0.3)) else 1
        out = _width(g)
        if kind == "stem":
            rows = columns = g.pick(64, 96, 128)
            width, out, zeros = g.pick(1, 3, 4), g.pick(8, 16, 24, 32), "none"
        out = max(8, out // 4) if width * kernel**2 * out > 3e5 else out
        act = g.pick("none", "relu6", "relu6", "relu")
        fields = {"width": out, "kernel": kernel, "stride": stride, "act": act, "zeros": zeros}
    elif op == "depthwise":
        fields = {"kernel": int(kind[10]), "stride": g.pick(1, 1, 2), "act": "relu6"}
    elif op == "dense":
        rows, columns, width = 1, 1, _width(g, 32, 1024)
        fields = {"width": g.pick(16, 42, 63, 64, 128, 256), "zeros": g.pick("none", "none", "2:4", "half")}
    elif op in ("avg_pool", "max_pool"):
        fields = {"kernel": g.pick(2, 3), "stride": 2}
    elif op == "mean":
        rows = columns = g.pick(4, 6, 8)
        fields = {"mode": "keep"}
    elif op == "resize":
        rows, columns, fields = min(rows, 32), min(columns, 32), {"mode": g.pick("nearest", "bilinear")}
    elif op in ("softmax", "matmul"):
        rows, columns, width = 1, g.pick(16, 36, 64, 100, 144), g.pick(16, 24, 32, 48, 64)
    while rows * columns * max(width, fields.get("width", 0)) * g.bits / 8 > 1.5e6:
        rows, columns = max(1, rows // 2), max(1, columns // 2)
    g.bits = 8 if op in (*_INT8_ONLY, "resize", "mean") else g.bits
    return _probe(g, op, (rows, columns, width), fields), kind, float(g.pick(16, 24, 32, 32, 32, 48))


def _width(g: _Grower, low: int = 8, high: int = 320) -> int:
    width = int(np.exp(g.rng.uniform(np.log(low), np.log(high))))
    return width if g.chance(0.15) else max(8, (width + 4) // 8 * 8)


def _probe(g: _Grower, op: Op, shape: tuple[int, int, int], fields: dict[str, Any]) -> Recipe:
    bits, two = g.bits, op in ("add", "mul", "matmul")
    inside = g.chance(0.5) and op not in ("dense", "softmax", "matmul")
    plain = op in ("softmax", "matmul")
    flat = (shape[1], shape[2]) if plain else (shape[2],) if op == "dense" else shape
    other = (shape[2], shape[1]) if op == "matmul" else flat
    if not inside:
        inputs = [Layer("input", "image", like=flat, bits=bits)]
        inputs += [Layer("input", "other", like=other, bits=bits)] if two else []
        return (*inputs, Layer(op, "layer", tuple(x.name for x in inputs), bits=bits, **fields))
    head = Layer("input", "image", like=(*shape[:2], 16), bits=bits)
    before = [
        Layer("conv", name, ("image",), width=shape[2], bits=bits) for name in ("before", "beside")[: 1 + two]
    ]
    core = Layer(op, "layer", tuple(x.name for x in before), bits=bits, **fields)
    after = Layer("conv", "after", ("layer",), width=16, bits=bits)
    return (head, *before, core, after)
