"""What an operation becomes on a chip: one of the few kinds of work that `cycles` and `memory` know.

Those are convolution, depthwise, dense, pool, mean and element-wise (`ADD` with its `rate`). After
`graphir_optimiser.cpp`, `tflite_graph_optimiser.cpp`, `softmax.cpp`, `GetOutputCyclesPerElement` (Ethos-U85) and
`EstimateAOCyclesPerElement`, `EstimateMatMulCycles` (Ethos-U55) of ethos-u-vela 5.2.0. Numbers without another
source are rounded from its cycles on single operations; tests/npu/test_lowering.py says how far they are off.
"""

import jax
import jax.numpy as jnp

from research.npu import table as kind
from research.npu.chip import Chip
from research.npu.choices import between
from research.npu.rounding import Rounding
from research.npu.table import LayerTable

HOST_CYCLES = 32.0  # an element, on the CPU: a cautious assumption; the compiler itself counts nothing
LOOKUP_CYCLES = 1.0  # arch55: activationCycles[0], an element that is looked up in a table
_DIV_CYCLES = 33.0  # arch85: GetOutputCyclesPerElement


def stored(layer: LayerTable, rounding: Rounding) -> jax.Array:
    """Elements of each output as they lie in memory, channels in whole bricks, [L]."""
    return layer.oh * layer.ow * between(layer.plain_out, layer.oc, rounding.up(layer.oc, 16.0))


def table_bytes(layer: LayerTable) -> jax.Array:
    """Bytes of the table of values that a layer looks its results up in, fetched before it runs, [L]; 0 for none.

    256 bytes, or 512 pairs of value and slope (16 bit). A look-up that rides is fetched for the layer it rides on.
    """
    rides = (layer.carried > 0) & (layer.bits == 8)
    looks_up = ((layer.op == kind.LOOKUP) & ~rides) | ((layer.carries_lookup > 0) & (layer.op != kind.FREE))
    return jnp.where(looks_up, jnp.where(layer.bits == 16, 2048.0, 256.0), 0.0)


def on_host(layer: LayerTable, chip: Chip) -> jax.Array:
    """Bool [L]: what the compiler leaves to the CPU; it is priced at `HOST_CYCLES` an element."""
    missing = (layer.op == kind.DIV) | ((layer.op == kind.MATMUL) & (layer.bits == 16))
    return (layer.op == kind.HOST) | (missing & (chip.family == "u55"))


def lower(layer: LayerTable, chip: Chip, rounding: Rounding) -> LayerTable:
    """The table in kinds of work of `chip`, fields [L] as before; `constant` is then in bytes."""
    op, old = layer.op, chip.family == "u55"
    passes = _among(
        op,
        kind.MUL,
        kind.COMPARE,
        kind.DIV,
        kind.PRELU,
        kind.SOFTMAX,
        kind.MATMUL,
        kind.PAD,
        kind.HOST,
        kind.TRANSPOSE if old else kind.RESIZE,
    )
    pools = _among(op, kind.LOOKUP, kind.COPY, kind.TRANSPOSE, kind.RESIZE) & ~passes
    rides = (
        (op == kind.COPY) | ((op == kind.LOOKUP) & (layer.bits == 8)) | ((op == kind.TRANSPOSE) & (not old))
    )
    spread = op == kind.TRANSPOSE_CONV  # a convolution of the input with zeros between its pixels
    phases = jnp.where(spread & (not old), layer.stride, 1.0)  # of the output, each a convolution of its own
    image, nearest = pools | spread, (op == kind.RESIZE) & (layer.kh * layer.kw <= 1) & old
    grown = jnp.maximum(layer.oh * layer.ow / (layer.ih * layer.iw), 4.0)  # by doubling again and again
    return layer._replace(
        op=jnp.select(
            [rides & (layer.carried > 0), passes, pools, spread],
            [kind.FREE, kind.ADD, kind.AVG_POOL, kind.CONV],
            op,
        ),
        ih=jnp.where(image, layer.oh, layer.ih),
        iw=jnp.where(image, layer.ow, layer.iw),
        ic=jnp.where(pools, layer.oc, layer.ic),
        kh=layer.kh / phases,
        kw=layer.kw / phases,
        stride=jnp.where(image, 1.0, layer.stride),
        carried=jnp.where(_among(op, kind.ADD, kind.MUL, kind.COMPARE), layer.carried, 0.0),
        repeats=layer.repeats * phases**2 * jnp.where(nearest, (1 - 1 / grown) * 4 / 3, 1.0),
        constant=jnp.where((op == kind.PRELU) & old, 0.0, _constant_bytes(layer, chip, rounding)),
        rate=jnp.where(passes, layer.rate * _rate(layer, chip, rounding), layer.rate),
    )


def _among(op: jax.Array, *codes: int) -> jax.Array:
    return jnp.isin(op, jnp.asarray(codes, jnp.float32))


def _constant_bytes(layer: LayerTable, chip: Chip, rounding: Rounding) -> jax.Array:
    """Flash bytes read for a constant operand, [L]: Ethos-U55 reads it again for every pixel, in bursts of 128
    bytes that bring as many channels as its block is deep (measured: 16, 64 or 128)."""
    if chip.family == "u85":
        return layer.constant * 8.0 * (1 - layer.carried)
    area = layer.oh * layer.ow
    waste = jnp.where((area < 64) | (layer.oc <= 16), 1.0, jnp.where(area < 256, 2.0, 8.0))
    return jnp.where(layer.constant > 0, stored(layer, rounding) * jnp.maximum(waste, layer.bits / 8), 0.0)


def _rate(layer: LayerTable, chip: Chip, rounding: Rounding) -> jax.Array:
    """Cycles an element of what runs as element-wise passes, in cycles of an add, [L]."""
    wide, elements = layer.bits == 16, stored(layer, rounding)
    add = jnp.where(wide, chip.add_cycles[1], chip.add_cycles[0])
    copy = 128 / chip.macs_per_cycle * layer.bits / 8  # a pool of 1 x 1
    m, n, k = layer.ow, rounding.up(layer.oc, 16.0), rounding.up(layer.ic, 16.0)  # of [m, k] @ [k, n]
    # A PReLU is max(x, slope * x), each rescaled, where its `rate` of 1 says that no slope is above 1.
    if chip.family == "u55":
        slopes = _constant_bytes(layer, chip, rounding) / chip.flash.bytes_per_cycle / elements
        prelu = add * (5 / 6 + 1.8 * (layer.rate - 1)) + jnp.maximum(add / 2, slopes)
        column = m * (k * add / 2 + 2 * rounding.tiles(layer.ic, 8.0)) + 110  # a product and a sum
        cycles: dict[int, jax.Array | float] = {
            kind.MUL: add / 2, kind.COMPARE: add / 3, kind.PRELU: prelu / layer.rate,
            kind.SOFTMAX: jnp.where(wide, 31.0, 27.0) * layer.oh * m * layer.oc / elements,
            kind.MATMUL: jnp.where(wide, HOST_CYCLES, column * layer.oc / elements),
            kind.TRANSPOSE: 3 * layer.bits / 64, kind.PAD: 8.0,
        }  # fmt: skip
    else:
        product = m * n * jnp.maximum(add, k * layer.bits / 8 / chip.macs_per_cycle)
        # A large array waits for SRAM instead: plain layouts are written in bursts of 16 elements.
        waits = chip.macs_per_cycle > 256
        by_product, by_copy, start = (1.39, 1.64, 50.0) if waits else (1.03, 1.05, 300.0)
        if waits:
            each, row, begin = jnp.where(wide, 6.1, 3.2), jnp.where(wide, 0.0, -19.0), jnp.where(wide, 250.0, 1500.0)
        else:
            each, row, begin = jnp.where(wide, 21.0, 4.5) * add + 2.8, jnp.float32(24.0), jnp.float32(600.0)
        cycles = {
            kind.MUL: add, kind.COMPARE: add, kind.PRELU: 3 * add,
            kind.SOFTMAX: (layer.oh * m * (n * each + row) + begin) / elements,
            kind.MATMUL: (by_product * product + by_copy * copy * n * k + start) / elements,
            kind.RESIZE: add * layer.bits / 8, kind.PAD: 4.0, kind.DIV: _DIV_CYCLES,
        }  # fmt: skip
    choices = [layer.op == code for code in cycles], [jnp.broadcast_to(c, add.shape) for c in cycles.values()]
    return jnp.select(*choices, HOST_CYCLES) / add
