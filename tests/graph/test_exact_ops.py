"""Every operation without weights against LiteRT's reference kernels."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.graph.exact_ops import OPS
from research.graph.ir import BINARY, Op
from tests.graph.exact_cases import (
    CURVES,
    INT8_ONLY,
    LINES,
    MOVES,
    differing,
    random_inputs,
    random_program,
    unary,
)  # fmt: skip

SEEDS = st.integers(0, 10**6)


def both(*ops: str) -> list[tuple[str, str]]:
    """Every operation with the formats it has a kernel for."""
    return [(op, d) for op in ops for d in ("int8", "int16") if d == "int8" or op not in INT8_ONLY]


def agree(op: str, dtype: str, seed: int) -> None:
    made = random_program(op, dtype, seed)
    assert differing(made, random_inputs(made, seed)) == 0


@pytest.mark.parametrize(("op", "dtype"), both(*BINARY, "avg_pool", "mean", "resize"))
@settings(max_examples=5)
@given(seed=SEEDS)
def test_arithmetic_is_litert(op: str, dtype: str, seed: int) -> None:
    agree(op, dtype, seed)


@pytest.mark.parametrize(("op", "dtype"), both("softmax"))
@settings(max_examples=4)
@given(seed=SEEDS)
def test_softmax_is_litert(op: str, dtype: str, seed: int) -> None:
    agree(op, dtype, seed)


@pytest.mark.parametrize(("op", "dtype"), both(*MOVES, "max_pool"))
@settings(max_examples=2)
@given(seed=SEEDS)
def test_moves_are_litert(op: str, dtype: str, seed: int) -> None:
    agree(op, dtype, seed)


@pytest.mark.parametrize(("op", "dtype"), [*both(*CURVES, *LINES), ("quantize", "uint8")])
@settings(max_examples=4)
@given(seed=SEEDS)
def test_unary_operations_are_litert_on_every_integer(op: str, dtype: str, seed: int) -> None:
    numbers = np.arange(*{"int8": (-128, 128), "uint8": (0, 256), "int16": (-32768, 32768)}[dtype]).astype(
        dtype
    )
    if op in ("sqrt", "rsqrt") and dtype == "int16":
        numbers = numbers[numbers >= 0]  # LiteRT stops at the others
    made = unary(np.random.default_rng(seed), op, dtype, (1, len(numbers)))
    assert differing(made, [numbers[None]]) == 0


def test_all_but_square_have_integers() -> None:
    assert set(get_args(Op)) - set(OPS) == {"square"}
