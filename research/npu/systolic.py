"""A second family of chips: a systolic array of rows x columns multipliers, weight or output stationary.

Every layer is a product of matrices, [E, K] @ [K, N]: E output pixels, K = kernel positions * input channels, N output
channels. An array of R rows and C columns takes it in folds; the cycles are the closed forms of SCALE-Sim
(Samajdar et al., "A systematic methodology for characterizing scalability of DNN accelerators using SCALE-Sim",
ISPASS 2020), the index of the last cycle, counted from 0:
  weight stationary  ceil(K/R) * ceil(N/C) * (2R + C + E - 2) - 1   load R rows of weights, stream E pixels, drain
  output stationary  ceil(E/R) * ceil(N/C) * (K + R + C - 2) - 1    stream K products into R x C sums
An N:M pattern leaves N of every M input channels, so it divides K. FP16 runs at a rate of its own.
"""

import dataclasses
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.npu import table as kind
from research.npu.cost import Cost
from research.npu.rounding import EXACT, Rounding
from research.npu.table import LayerTable

Dataflow = Literal["ws", "os"]


@dataclasses.dataclass(frozen=True)
class Systolic:
    """A systolic array and its memories; hashable, so it is a static argument of `jax.jit`.

    ValueError, one line, for a size below 1, an unknown dataflow or a pattern that is not N of M.
    """

    name: str
    rows: int
    columns: int
    dataflow: Dataflow
    clock_mhz: float
    fp16_cycles: int  # an FP16 multiply-accumulate, where an int8 one takes 1
    keeps: tuple[int, int]  # N:M patterns that run compressed; (1, 1): none
    lanes: int  # elements a cycle of the vector unit: pools and element-wise operations
    sram_bytes_per_cycle: float  # feature maps
    flash_bytes_per_cycle: float  # weights
    energy_scale: float = 1.0

    def __post_init__(self) -> None:
        sizes = ("rows", "columns", "clock_mhz", "fp16_cycles", "lanes")
        for name in (*sizes, "sram_bytes_per_cycle", "flash_bytes_per_cycle", "energy_scale"):
            value = getattr(self, name)
            if not np.isfinite(value) or value <= 0 or (name in ("rows", "columns") and value != int(value)):
                raise ValueError(f"{name} of {self.name} must be a positive number, got {value!r}")
        if self.dataflow not in ("ws", "os"):
            raise ValueError(f"dataflow of {self.name} must be 'ws' or 'os', got {self.dataflow!r}")
        if not 1 <= self.keeps[0] <= self.keeps[1]:
            raise ValueError(f"keeps of {self.name} is (N, M) with 1 <= N <= M, got {self.keeps!r}")

    @property
    def macs_per_cycle(self) -> int:
        """int8 multiply-accumulates a cycle when the array is full."""
        return self.rows * self.columns

    @property
    def sparse_2_4(self) -> bool:
        """Whether 2:4 weights run at twice the rate."""
        return self.keeps == (2, 4)

    @property
    def cycles_per_ms(self) -> float:
        """Clock cycles in a millisecond."""
        return self.clock_mhz * 1e3


SYSTOLIC_WS = Systolic(
    name="systolic-16x16-ws",
    rows=16,  # Genc et al., "Gemmini", DAC 2021: the default array
    columns=16,  # the same
    dataflow="ws",  # Gemmini runs either
    clock_mhz=200.0,  # an assumption: the clock of the Ethos-U chips, so that cycles compare
    fp16_cycles=2,  # an assumption: half the int8 rate, as wide as two int8 operands
    keeps=(2, 4),  # an assumption: 2:4 with the operands picked in front of the array
    lanes=16,  # an assumption: one element a column; SCALE-Sim counts no such operation
    sram_bytes_per_cycle=32.0,  # Gemmini's scratchpad: a row of 16 bytes in and one out
    flash_bytes_per_cycle=1.0,  # an assumption: the flash of Ethos_U85_SYS_Flash_Low
)
SYSTOLIC_OS = dataclasses.replace(SYSTOLIC_WS, name="systolic-16x16-os", dataflow="os")


class Product(NamedTuple):
    """The matrix products of each layer, float32 [L]: `times` products [e, k] @ [k, n]; 0 times: none."""

    e: jax.Array
    n: jax.Array
    k: jax.Array
    times: jax.Array


def product_cycles(chip: Systolic, e: int, n: int, k: int, *, times: int = 1, bits: int = 8) -> int:
    """Exact cycles of `times` products [e, k] @ [k, n] one after the other, whole numbers of any size.

    ValueError for a side below 1 or bits other than 8 and 16 (16 is FP16).
    """
    if min(e, n, k, times) < 1 or bits not in (8, 16):
        raise ValueError(f"a product needs sides of 1 or more and 8 or 16 bits, got {(e, n, k, times, bits)}")
    rows, columns = chip.rows, chip.columns
    if chip.dataflow == "ws":
        folds, each = -(-k // rows) * -(-n // columns), 2 * rows + columns + e - 2
    else:
        folds, each = -(-e // rows) * -(-n // columns), k + rows + columns - 2
    return times * folds * each * (chip.fp16_cycles if bits == 16 else 1) - 1


def products(layer: LayerTable, keeps: tuple[int, int] = (1, 1)) -> Product:
    """What each row multiplies, [L] each; `keeps` (N, M) leaves N of every M input channels.

    A depthwise layer is a product a channel. A transposed convolution multiplies its input by every kernel
    position and adds up what overlaps. A dilated kernel counts with the zeros between its taps (as the table does).
    """
    convolves = (layer.op == kind.CONV) | (layer.op == kind.DENSE)
    spread, matmul = layer.op == kind.TRANSPOSE_CONV, layer.op == kind.MATMUL
    depthwise = layer.op == kind.DEPTHWISE
    few, group = keeps
    left = layer.ic - group * jnp.floor(layer.ic / group)
    kept = (layer.ic - left) * (few / group) + jnp.minimum(left, few)
    depth = jnp.where(convolves, kept, jnp.where(depthwise, 1.0, layer.ic))
    taps = layer.kh * layer.kw
    return Product(
        e=jnp.where(spread, layer.ih * layer.iw, layer.oh * layer.ow),
        n=jnp.where(depthwise, 1.0, layer.oc * jnp.where(spread, taps, 1.0)),
        k=depth * jnp.where(spread | matmul | (layer.op == kind.DENSE), 1.0, taps),
        times=jnp.where(convolves | spread | matmul | depthwise, layer.repeats, 0.0)
        * jnp.where(depthwise, layer.oc, 1.0),
    )


def exact_cycles(table: LayerTable, chip: Systolic) -> tuple[int, ...]:
    """Cycles of the array for every row, whole numbers, 0 where nothing is multiplied. The discrete face.

    ValueError where a width is not whole or a layer is sparse by a fraction.
    """
    found = []
    forms = [products(table, keeps) for keeps in ((1, 1), chip.keeps)]
    for row, sparse in enumerate(np.asarray(table.sparse)):
        if sparse not in (0, 1):
            raise ValueError(f"row {row} is sparse by {sparse:g}: the exact cycles need 0 or 1")
        sides = [float(side[row]) for side in forms[int(sparse)]]
        if any(side != int(side) for side in sides):
            raise ValueError(f"row {row} multiplies {sides}: the exact cycles need whole numbers")
        e, n, k, times = (int(side) for side in sides)
        bits = int(table.bits[row])
        found.append(product_cycles(chip, e, n, k, times=times, bits=bits) if times else 0)
    return tuple(found)


@partial(jax.jit, static_argnames=("chip", "rounding"))
def systolic_cost(table: LayerTable, chip: Systolic, *, rounding: Rounding = EXACT) -> Cost:
    """The same cycles jitted and differentiable, with the vector unit and the memories beside them.

    Equal to `exact_cycles` up to 2^24 cycles a layer, then to float32. A layer takes the longest of its work
    and each memory's cycles; weights come from flash once. `sparse` and `bits` between their ends interpolate.

    Args:
      table: the layers, fields of shape [L]; 16 bits are FP16 here, of weights too.
      chip: static.
      rounding: static, as in `cost`.
    """
    dense, half = products(table), products(table, chip.keeps)
    wide = table.bits / 8
    slow = 1 + (wide - 1) * (chip.fp16_cycles - 1)
    by_weight = [_array_cycles(p, chip, rounding) * slow for p in (dense, half)]
    multiplies = dense.times > 0
    mac = by_weight[0] + table.sparse * (by_weight[1] - by_weight[0])
    mac = jnp.where(multiplies, mac - 1, 0.0)
    vector = jnp.where(multiplies, 0.0, rounding.tiles(_vector_elements(table), float(chip.lanes)))

    share = jnp.where(dense.k > 0, half.k / dense.k, 1.0)
    pointer = np.ceil(np.log2(chip.keeps[1])) / 8  # bytes that say which of M a kept weight is
    compressed = share * (wide + pointer) if chip.keeps[0] < chip.keeps[1] else wide
    weight_bytes = table.weights * table.repeats * (wide + table.sparse * (compressed - wide))
    runs = table.op != kind.FREE
    maps = (table.ih * table.iw * table.ic + table.oh * table.ow * table.oc) * table.repeats * wide
    sram_bytes = jnp.where(runs, maps, 0.0)
    sram, flash = sram_bytes / chip.sram_bytes_per_cycle, weight_bytes / chip.flash_bytes_per_cycle
    cycles = jnp.maximum(mac + vector, jnp.maximum(sram, flash))
    fields = {
        "ms": jnp.sum(cycles) / chip.cycles_per_ms, "cycles": cycles, "npu_cycles": mac + vector,
        "mac_cycles": mac, "output_cycles": vector, "sram_cycles": sram, "flash_cycles": flash,
        "sram_bytes": sram_bytes, "flash_bytes": weight_bytes, "weight_bytes": weight_bytes,
        "macs": table.layer_macs * (1 + table.sparse * (share - 1)), "runs_sparse": table.sparse * (share < 1),
    }  # fmt: skip
    return Cost(**(dict.fromkeys(Cost._fields, jnp.zeros_like(cycles)) | fields))


def _array_cycles(product: Product, chip: Systolic, rounding: Rounding) -> jax.Array:
    """The closed form without its -1, [L]."""
    rows, columns = float(chip.rows), float(chip.columns)
    tall = product.k if chip.dataflow == "ws" else product.e
    each = 2 * rows + columns + product.e - 2 if chip.dataflow == "ws" else product.k + rows + columns - 2
    return product.times * rounding.tiles(tall, rows) * rounding.tiles(product.n, columns) * each


def _vector_elements(layer: LayerTable) -> jax.Array:
    """Elements that pass the vector unit: windows of pools, all that a mean reads, results of the rest, [L]."""
    pools = (layer.op == kind.MAX_POOL) | (layer.op == kind.AVG_POOL)
    made = layer.oh * layer.ow * layer.oc * jnp.where(pools, layer.kh * layer.kw, 1.0)
    read = jnp.where(layer.op == kind.MEAN, layer.ih * layer.iw * layer.ic, made)
    return jnp.where(layer.op == kind.FREE, 0.0, read * layer.repeats * (1 - layer.carried))
