"""Every operation of the vocabulary costs about what the compiler says, alone in a network and between layers."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
import pytest

from research.graph.ir import Graph, Op
from research.npu.chip import U55_128, U85_128, Chip
from research.npu.choices import Choices
from research.npu.cost import cost
from research.npu.lowering import HOST_CYCLES, lower, on_host
from research.npu.referee import referee
from research.npu.rounding import EXACT
from research.npu.table import (
    ADD,
    AVG_POOL,
    CONV,
    DIV,
    FREE,
    HOST,
    LOOKUP,
    MATMUL,
    MUL,
    RESIZE,
    TRANSPOSE_CONV,
    layer_table,
    pad,
)
from research.npu.weights import with_kernels
from tests.npu.networks import Sketch, rows, with_weights

Build = Callable[[Sketch, str], str]
SHAPES = ((8, 8, 16), (16, 16, 32), (32, 32, 48), (12, 12, 96), (24, 24, 24), (20, 20, 64))
ROWS = 12


def channels(s: Sketch, x: str) -> int:
    return s.shapes[x][-1]


def convolution(s: Sketch, x: str, op: Op, kernel: int, groups: int = 1, **attributes: Any) -> str:
    c = channels(s, x)
    depth = 1 if op == "depthwise" else c // groups
    return s.op(op, x, kernel_shape=(kernel, kernel, depth, c), padding="SAME", **attributes)


def scaled(s: Sketch, x: str, factor: int) -> tuple[int, ...]:
    n, h, w, c = s.shapes[x]
    return n, h * factor, w * factor, c


def flat(s: Sketch, x: str) -> str:
    n, h, w, c = s.shapes[x]
    return s.op("reshape", x, recorded=(n, h * w, c))


def columns(s: Sketch, x: str) -> str:
    n, h, _, c = s.shapes[x]
    return s.op("mean", x, axes=(2,), recorded=(n, h, 1, c))


def corner(s: Sketch, x: str) -> str:
    return s.op("slice", x, spans=((0, 1), (1, 2), (1, 2), (0, 1)), recorded=(1, 3, 3, channels(s, x)))


def attention(s: Sketch, x: str) -> str:
    y = flat(s, x)
    return s.op(
        "matmul", y, s.op("transpose", flat(s, s.unit("conv", x, "key", channels(s, x))), axes=(0, 2, 1))
    )


def excite(s: Sketch, x: str) -> str:
    c = channels(s, x)
    y = s.op("mean", x, axes=(1, 2), recorded=(1, 1, 1, c))
    return s.op("mul", x, s.op("logistic", s.unit("conv", y, "gate", c, act="none")))


def norm(s: Sketch, x: str) -> str:
    y = s.op("mul", x, s.constant(channels(s, x)))
    return s.op("clamp", s.op("add", y, s.constant(channels(s, x))), bounds=(0.0, inf))


KINDS: dict[str, tuple[Build, float, float]] = {  # and the allowed median error on Ethos-U85 and Ethos-U55
    "logistic": (lambda s, x: s.op("logistic", x), 0.05, 0.06),
    "hard_swish": (lambda s, x: s.op("hard_swish", x), 0.05, 0.06),
    "leaky_relu": (lambda s, x: s.op("leaky_relu", x, alpha=0.1), 0.05, 0.06),
    "abs": (lambda s, x: s.op("abs", x), 0.02, 0.05),
    "add a row": (lambda s, x: s.op("add", x, s.constant(channels(s, x))), 0.02, 0.03),
    "mul a row": (lambda s, x: s.op("mul", x, s.constant(channels(s, x))), 0.02, 0.03),
    "mul a number": (lambda s, x: s.op("mul", x, s.constant(1)), 0.02, 0.05),
    "prelu": (lambda s, x: s.op("prelu", x, s.constant(1, 1, channels(s, x))), 0.03, 0.03),
    "pad": (lambda s, x: s.op("pad", x, spans=((0, 0), (1, 1), (1, 1), (0, 0))), 0.15, 0.4),
    "transpose": (lambda s, x: s.op("transpose", x, axes=(0, 2, 1, 3)), 0.1, 0.06),
    "nearest": (lambda s, x: s.op("resize", x, mode="nearest", recorded=scaled(s, x, 2)), 0.02, 0.03),
    "nearest x 4": (lambda s, x: s.op("resize", x, mode="nearest", recorded=scaled(s, x, 4)), 0.02, 0.03),
    "bilinear": (lambda s, x: s.op("resize", x, mode="bilinear", recorded=scaled(s, x, 2)), 0.02, 0.03),
    "half pixel": (lambda s, x: s.op("resize", x, mode="bilinear/half_pixel", recorded=scaled(s, x, 2)), 0.02, 0.1),
    "softmax": (lambda s, x: s.op("softmax", flat(s, x), alpha=1.0), 0.1, 0.1),
    "matmul": (attention, 0.12, 0.15),
    "transpose_conv": (
        lambda s, x: convolution(s, x, "transpose_conv", 2, strides=(2, 2), recorded=scaled(s, x, 2)), 0.05, 0.05,
    ),
    "grouped": (lambda s, x: convolution(s, x, "conv", 3, groups=4), 0.05, 0.08),
    "dilated": (lambda s, x: convolution(s, x, "conv", 3, dilation=(2, 2)), 0.03, 0.08),
    "unequal strides": (lambda s, x: convolution(s, x, "conv", 3, strides=(2, 1)), 0.05, 0.08),
    "mean of columns": (columns, 0.1, 0.15),
    "concat": (lambda s, x: s.op("concat", x, s.unit("conv", x, "more", 16), axis=3), 0.05, 0.06),
    "slice": (corner, 0.05, 0.06),
    "dense over pixels": (lambda s, x: s.op("dense", flat(s, x), kernel_shape=(channels(s, x), 40)), 0.05, 0.12),
    "excite": (excite, 0.04, 0.05),
    "norm and relu": (norm, 0.02, 0.03),
}  # fmt: skip


def network(build: Build, shape: tuple[int, int, int]) -> Graph:
    """The operation between two convolutions."""
    sketch = Sketch(shape)
    made = build(sketch, sketch.unit("conv", "image", "first", shape[2], act="none"))
    return sketch.graph(sketch.unit("conv", made, "last", 16) if len(sketch.shapes[made]) == 4 else made)


def error(build: Build, shape: tuple[int, int, int], chip: Chip, grouping: bool = True) -> float:
    net = with_weights(network(build, shape))
    table = pad(with_kernels(layer_table(net.graph), net.graph, net.kernels), ROWS)
    found = cost(table, chip, Choices(fused=jnp.full((ROWS,), float(grouping))))
    verdict = referee(net.model, chip, () if grouping else ("Grouping",))
    assert verdict.cpu_ops == 0
    assert float(found.host_cycles.sum()) == 0
    return abs(float(found.cycles.sum()) / verdict.cycles - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_operations_cost_what_the_compiler_says(kind: str) -> None:
    build, *bars = KINDS[kind]
    for chip, bar in zip((U85_128, U55_128), bars, strict=True):
        assert np.median([error(build, shape, chip) for shape in SHAPES]) <= bar, chip.name


@pytest.mark.parametrize("chip", [U85_128, U55_128], ids=lambda chip: chip.name)
@pytest.mark.parametrize("kind", ["norm and relu", "hard_swish", "excite"])
def test_without_grouping_every_pass_is_its_own(kind: str, chip: Chip) -> None:
    build = KINDS[kind][0]
    assert np.median([error(build, shape, chip, grouping=False) for shape in SHAPES]) <= 0.05
    table = layer_table(network(build, SHAPES[1]))
    alone = cost(table, chip, Choices(fused=jnp.zeros_like(table.op)))
    assert float(alone.ms) >= float(cost(table, chip).ms)


@pytest.mark.parametrize(
    ("build", "left_by"),
    [
        (lambda s, x: s.op("sqrt", x), (U85_128, U55_128)),
        (lambda s, x: s.op("depth_to_space", x, window=(2, 2)), (U85_128, U55_128)),
        (lambda s, x: s.op("resize", x, mode="bilinear", recorded=scaled(s, x, 3)), (U85_128, U55_128)),
        (lambda s, x: s.op("mean", x, axes=(3,), recorded=(*s.shapes[x][:3], 1)), (U85_128, U55_128)),
        (lambda s, x: s.op("div", x, s.op("logistic", x)), (U55_128,)),
    ],
)  # fmt: skip
def test_what_the_compiler_leaves_to_the_cpu_is_flagged(build: Build, left_by: tuple[Chip, ...]) -> None:
    net = with_weights(network(build, (16, 16, 16)))
    for chip in (U85_128, U55_128):
        found = cost(layer_table(net.graph), chip)
        assert (
            (float(found.host_cycles.sum()) > 0)
            == (chip in left_by)
            == (referee(net.model, chip).cpu_ops > 0)
        )
        assert float(found.host_cycles.sum()) <= float(found.cycles.sum())


def test_every_operation_has_a_kind_of_work() -> None:
    kinds = {CONV, ADD, AVG_POOL, FREE}
    for chip in (U85_128, U55_128):
        for code in range(FREE + 1):
            work = float(lower(rows({"op": code}), chip, EXACT).op[0])
            assert work in kinds or work == code < TRANSPOSE_CONV
    assert len(get_args(Op)) == 36


def test_a_lookup_rides_in_8_bits_only() -> None:
    table = rows({"op": LOOKUP, "carried": 1.0}, {"op": LOOKUP, "carried": 1.0, "bits": 16})
    assert [float(op) for op in lower(table, U85_128, EXACT).op] == [FREE, AVG_POOL]


def test_chips_differ_where_their_formulas_do() -> None:
    table = rows(
        {"op": MUL}, {"op": RESIZE, "kh": 2, "kw": 2}, {"op": DIV}, {"op": TRANSPOSE_CONV, "stride": 2}
    )
    new, old = lower(table, U85_128, EXACT), lower(table, U55_128, EXACT)
    assert [float(op) for op in new.op] == [ADD, ADD, ADD, CONV]
    assert [float(op) for op in old.op] == [ADD, AVG_POOL, ADD, CONV]
    np.testing.assert_allclose(new.rate[:3], [1.0, 1.0, 66.0])
    np.testing.assert_allclose(old.rate[jnp.asarray([0, 2])], [0.5, HOST_CYCLES / 1.5])
    assert [float(r) for r in (new.repeats[3], old.repeats[3])] == [4, 1]
    assert [bool(on_host(table, chip)[2]) for chip in (U85_128, U55_128)] == [False, True]


def test_host_is_priced_by_the_element() -> None:
    found = cost(rows({"op": HOST}, {"op": MATMUL, "bits": 16}), U55_128)
    np.testing.assert_allclose(found.host_cycles, HOST_CYCLES * 16 * 16 * 64)
