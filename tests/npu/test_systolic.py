"""The closed forms agree with an array simulated cycle by cycle, and their three faces with one another."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.npu.reference import v1_graph
from research.npu.rounding import EXACT, THROUGH, Rounding
from research.npu.systolic import (
    SYSTOLIC_OS,
    SYSTOLIC_WS,
    Systolic,
    exact_cycles,
    product_cycles,
    products,
    systolic_cost,
)
from research.npu.table import (
    ADD,
    CONV,
    DENSE,
    DEPTHWISE,
    FREE,
    MATMUL,
    MAX_POOL,
    TRANSPOSE_CONV,
    layer_table,
)
from tests.npu.networks import rows

BOTH = (SYSTOLIC_WS, SYSTOLIC_OS)
OPS = (CONV, DEPTHWISE, DENSE, MATMUL, TRANSPOSE_CONV, ADD, MAX_POOL)


def array(rows_: int, columns: int, dataflow: Any) -> Systolic:
    return dataclasses.replace(SYSTOLIC_WS, rows=rows_, columns=columns, dataflow=dataflow)


def simulate(chip: Systolic, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, int]:
    """(left @ right, index of the last busy cycle): every multiplier keeps one operand and hands on the others."""
    (e, k), n, now = left.shape, right.shape[1], 0
    out = np.zeros((e, n), np.int64)
    tall = k if chip.dataflow == "ws" else e
    for row in range(0, tall, chip.rows):
        for column in range(0, n, chip.columns):
            across = slice(column, column + chip.columns)
            if chip.dataflow == "ws":
                down = slice(row, row + chip.rows)
                part, took = stream_pixels(chip, left[:, down], right[down, across])
                out[:, across] += part
            else:
                down = slice(row, row + chip.rows)
                out[down, across], took = stream_products(chip, left[down], right[:, across])
            now += took
    return out, now - 1


def padded(matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.pad(matrix, ((0, height - matrix.shape[0]), (0, width - matrix.shape[1])))


def stream_pixels(chip: Systolic, pixels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Weights shift in, a row a cycle; then pixels enter from the left, skewed, and sums fall out below."""
    high, wide, e = chip.rows, chip.columns, len(pixels)
    pixels, source = padded(pixels, e, high), padded(weights, high, wide)
    held, moving, sums = (np.zeros((high, wide), np.int64) for _ in range(3))
    found: dict[tuple[int, int], int] = {}
    cycle = 0
    for row in reversed(range(high)):
        held = np.vstack([source[row], held[:-1]])
        cycle += 1
    start = cycle
    while len(found) < e * wide:
        entering = [pixels[cycle - start - r, r] if 0 <= cycle - start - r < e else 0 for r in range(high)]
        moving = np.column_stack([entering, moving[:, :-1]])
        sums = np.vstack([np.zeros(wide, np.int64), sums[:-1]]) + moving * held
        for c in range(wide):
            pixel = cycle - start - (high - 1) - c
            if 0 <= pixel < e:
                found[pixel, c] = sums[-1, c]
        cycle += 1
    values = np.array([[found[p, c] for c in range(wide)] for p in range(e)])
    return values[:, : weights.shape[1]], cycle


def stream_products(chip: Systolic, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, int]:
    """Pixels enter from the left and weights from above, skewed; sums stay until the last product arrived."""
    high, wide, k = chip.rows, chip.columns, left.shape[1]
    a, b = padded(left, high, k), padded(right, k, wide)
    across, down, sums, seen = (np.zeros((high, wide), np.int64) for _ in range(4))
    cycle = 0
    while seen.min() < k:
        at = [cycle - r for r in range(max(high, wide))]
        across = np.column_stack(
            [[a[r, at[r]] if 0 <= at[r] < k else 0 for r in range(high)], across[:, :-1]]
        )
        down = np.vstack([[b[at[c], c] if 0 <= at[c] < k else 0 for c in range(wide)], down[:-1]])
        sums += across * down
        skew = np.add.outer(np.arange(high), np.arange(wide))
        seen += (cycle >= skew) & (cycle - skew < k)
        cycle += 1
    return sums[: len(left), : right.shape[1]], cycle


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("seed", range(12))
def test_closed_form_equals_the_array_cycle_by_cycle(dataflow: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chip = array(*(int(x) for x in rng.integers(1, 6, 2)), dataflow)
    e, n, k = (int(x) for x in rng.integers(1, 14, 3))
    left, right = rng.integers(-128, 128, (e, k)), rng.integers(-127, 128, (k, n))
    values, last = simulate(chip, left, right)
    np.testing.assert_array_equal(values, left @ right)
    assert product_cycles(chip, e, n, k) == last


def test_numbers_worked_out_by_hand() -> None:
    """A 3x3 convolution of 64 to 128 channels at 14x14 on 32 x 32: 18 * 4 and 7 * 4 folds."""
    assert product_cycles(array(32, 32, "ws"), 196, 128, 576) == 18 * 4 * (64 + 32 + 196 - 2) - 1 == 20_879
    assert product_cycles(array(32, 32, "os"), 196, 128, 576) == 7 * 4 * (576 + 32 + 32 - 2) - 1 == 17_863


def random_rows(seed: int, count: int = 60) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        side, kernel = int(rng.integers(1, 40)), int(rng.choice([1, 3, 5]))
        op = OPS[i % len(OPS)]
        sizes = {
            "oh": 1 if op == MATMUL else side,
            "ow": side,
            "ih": side,
            "iw": side,
            "kh": kernel,
            "kw": kernel,
        }
        widths = {"ic": int(rng.integers(1, 200)), "oc": int(rng.integers(1, 200))}
        sparse = float(op in (CONV, DENSE) and rng.random() < 0.5)
        out.append({"op": op, **sizes, **widths, "sparse": sparse, "bits": float(rng.choice([8, 16]))})
    return out


@pytest.mark.parametrize("chip", [*BOTH, array(7, 33, "ws"), array(128, 8, "os")], ids=lambda c: c.name)
@pytest.mark.parametrize("rounding", [EXACT, THROUGH], ids=["exact", "through"])
def test_jitted_cycles_are_integer_equal(chip: Systolic, rounding: Rounding) -> None:
    table = rows(*random_rows(1))
    exact = np.array(exact_cycles(table, chip), np.int64)
    jitted = np.asarray(systolic_cost(table, chip, rounding=rounding).mac_cycles, np.float64)
    small = exact < 2**24
    assert small.sum() > 30
    np.testing.assert_array_equal(jitted[small], exact[small])
    np.testing.assert_allclose(jitted, exact, rtol=2e-7)


def test_a_layer_becomes_the_product_its_convolution_is() -> None:
    """Multiplications counted from the products are those of the table, whatever the operation."""
    table = rows(*({**row, "sparse": 0.0} for row in random_rows(2)))
    p = products(table)
    dense = np.asarray(table.op) == DENSE  # a table's dense row has a kernel of 1 x 1; the random one has not
    counted, expected = np.asarray(p.e * p.n * p.k * p.times), np.asarray(table.layer_macs)
    np.testing.assert_allclose(counted[~dense], expected[~dense], rtol=1e-6)
    assert float(products(rows({"op": FREE})).times[0]) == 0


@pytest.mark.parametrize("chip", BOTH, ids=lambda c: c.name)
def test_n_of_m_divides_k(chip: Systolic) -> None:
    halved = products(rows({"ic": 64, "kh": 3, "kw": 3}, {"ic": 30}, {"ic": 3}), (2, 4)).k
    np.testing.assert_array_equal(np.asarray(halved), [288, 16, 2])
    dense, sparse = rows({"ic": 64, "kh": 3, "kw": 3}), rows({"ic": 64, "kh": 3, "kw": 3, "sparse": 1})
    assert exact_cycles(sparse, chip)[0] == product_cycles(chip, 256, 64, 288)
    cost = [systolic_cost(t, chip) for t in (dense, sparse)]
    assert cost[1].macs[0] == cost[0].macs[0] / 2
    assert cost[1].weight_bytes[0] == cost[0].weight_bytes[0] * 0.5 * 1.25  # 2 bits of index a kept byte
    none = dataclasses.replace(chip, keeps=(1, 1))
    assert exact_cycles(sparse, none) == exact_cycles(dense, none)
    assert float(systolic_cost(sparse, none).runs_sparse[0]) == 0


def test_fp16_takes_its_rate() -> None:
    chip = dataclasses.replace(SYSTOLIC_WS, fp16_cycles=4)
    narrow, wide = (exact_cycles(rows({"bits": bits}), chip)[0] for bits in (8, 16))
    assert wide + 1 == 4 * (narrow + 1)


@pytest.mark.parametrize("chip", BOTH, ids=lambda c: c.name)
def test_gradient_follows_the_staircase_on_average(chip: Systolic) -> None:
    """From 64 to 512 channels the straight-through slope adds up to the real difference."""

    def total(width: jax.Array) -> jax.Array:
        table = rows({})._replace(oc=width[None], kh=jnp.full((1,), 3.0), kw=jnp.full((1,), 3.0))
        return systolic_cost(table, chip, rounding=THROUGH).mac_cycles[0]

    widths = jnp.arange(64.0, 512.0, 4.0)
    slopes = jax.vmap(jax.grad(total))(widths)
    assert float(slopes.min()) > 0
    climbed = total(jnp.asarray(512.0)) - total(jnp.asarray(64.0))
    np.testing.assert_allclose(4 * float(slopes.sum()), float(climbed), rtol=1e-3)


@pytest.mark.parametrize("chip", BOTH, ids=lambda c: c.name)
def test_gradients_are_finite_on_every_kind_of_row(chip: Systolic) -> None:
    table = rows(*random_rows(3), {"op": FREE}, {"ic": 1.0, "oc": 1.0, "sparse": 0.5})
    fields = ("ic", "oc", "kh", "kw", "sparse", "bits")

    def total(values: tuple[jax.Array, ...]) -> jax.Array:
        changed = table._replace(**dict(zip(fields, values, strict=True)))
        return systolic_cost(changed, chip, rounding=THROUGH).ms

    gradients = jax.grad(total)(tuple(getattr(table, name) for name in fields))
    assert all(bool(jnp.isfinite(g).all()) for g in gradients)
    assert float(jnp.abs(gradients[4]).max()) > 0


def test_a_real_network_and_where_its_time_goes() -> None:
    table = layer_table(v1_graph())
    found = systolic_cost(table, SYSTOLIC_WS)
    longest = jnp.maximum(found.npu_cycles, jnp.maximum(found.sram_cycles, found.flash_cycles))
    np.testing.assert_array_equal(np.asarray(found.cycles), np.asarray(longest))
    assert float(found.ms) == pytest.approx(float(found.cycles.sum()) / 200e3)
    assert float(found.cycles.sum()) > float(table.macs) / SYSTOLIC_WS.macs_per_cycle
    assert float(found.mac_cycles.sum()) == pytest.approx(sum(exact_cycles(table, SYSTOLIC_WS)), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": 0}, "rows of systolic-16x16-ws must be a positive number, got 0"),
        ({"columns": 2.5}, "columns"),
        ({"clock_mhz": float("nan")}, "clock_mhz"),
        ({"dataflow": "is"}, "dataflow of systolic-16x16-ws must be 'ws' or 'os', got 'is'"),
        ({"keeps": (5, 4)}, "keeps"),
    ],
)
def test_a_chip_that_cannot_be_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(SYSTOLIC_WS, **change)


def test_what_has_no_whole_cycles_is_refused() -> None:
    with pytest.raises(ValueError, match="sides of 1 or more"):
        product_cycles(SYSTOLIC_WS, 0, 1, 1)
    with pytest.raises(ValueError, match="8 or 16 bits"):
        product_cycles(SYSTOLIC_WS, 1, 1, 1, bits=4)
    with pytest.raises(ValueError, match=r"sparse by 0\.5"):
        exact_cycles(rows({"sparse": 0.5}), SYSTOLIC_WS)
    with pytest.raises(ValueError, match="whole numbers"):
        exact_cycles(rows({"oc": 3.5}), SYSTOLIC_WS)
