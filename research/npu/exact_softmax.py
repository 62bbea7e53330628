"""Softmax in the operations of the NPU: 8 bit by a table of exponentials, 16 bit by two; the reciprocal by Newton.

After `Softmax::GetGraph8Bit` and `GetGraphInt16` of `softmax.cpp`, ethos-u-vela 5.2.0.
"""

from research.npu.chip import Chip
from research.npu.exact_steps import Area, Step, View
from research.npu.operation import Size

_NEWTON_STEPS = 3
_FAST_TRANSPOSE = 16  # rows from which the maximum is taken of the transposed input
_TABLE_BYTES, _WIDE_TABLE_BYTES = 1024, 2048


class _Writer:
    """Appends steps of one softmax; intermediate tensors have 32 bits."""

    def __init__(self, name: str) -> None:
        self.name, self.steps = name, list[Step]()

    def add(
        self, kind: str, ifm: View, ifm2: View | None = None, *, bits: int = 32, shape: Size | None = None,
        kernel: tuple[int, int] = (1, 1), transpose: str = "NHWC", out: View | None = None, table: int = 0,
        stored: Size | None = None,
    ) -> View:  # fmt: skip
        shape = shape or max((v.shape for v in (ifm, ifm2) if v is not None), key=lambda s: s[0] * s[1] * s[2])
        ofm = out or View(Area(self.name, stored or shape, bits), shape)
        self.steps.append(
            Step(self.name, kind, ifm, ofm, ifm2, kernel, transpose=transpose, table_bytes=table)
        )
        return ofm

    def number(self, shape: Size = (1, 1, 1)) -> View:
        return View(Area(self.name, shape, 32, constant=True, linear=True, memory="flash"), shape)


def softmax(name: str, source: View, target: View, chip: Chip) -> list[Step]:
    """The steps of a softmax over the channels of `source`, whose result is `target`."""
    h, w, c = source.shape
    bits, w_, one = source.area.bits, _Writer(name), (h, w, 1)
    source = View(source.area, (h, w, c))
    if bits == 8 and chip.family == "u85" and c != h * w * c and (w if w > 1 else h) >= _FAST_TRANSPOSE:
        turned = (c, h, w) if w > 1 else (c, w, h)
        order = "NCHW" if w > 1 else "NCWH"
        flat = w_.add("Transpose", source, bits=bits, shape=turned, transpose=order)
        top = w_.add("MaxPool", flat, bits=bits, shape=(1, *turned[1:]), kernel=(c, 1), stored=one)
    else:
        flat = View(source.area, (h * w, c, 1))
        top = w_.add("MaxPool", flat, bits=bits, shape=(h * w, 1, 1), kernel=(1, c))
    less = w_.add("Sub", source, View(top.area, one), bits=8 if bits == 8 else 32)
    if bits == 8:
        exp = w_.add("LUT", less, table=_TABLE_BYTES)
        total = w_.add("ReduceSum", w_.add("Asr", exp, w_.number()), shape=one)
        shift, inverse = _reciprocal8(w_, total)
    else:
        sums = w_.add("Add", w_.add("Mul", less, w_.number()), w_.number(), bits=16)
        exp = w_.add("LUT", sums, bits=16, table=_WIDE_TABLE_BYTES)
        shift, inverse = _reciprocal16(w_, w_.add("ReduceSum", exp, shape=one))
    product = w_.add("Mul", exp, View(inverse.area, one))
    if chip.family == "u55":  # a rounding that its shifter does not know
        product = w_.add("Add", w_.number((h, w, c)), product)
    w_.add("Asr", product, View(shift.area, one), out=target)
    return w_.steps


def _reciprocal8(w: _Writer, total: View) -> tuple[View, View]:
    headroom = w.add("CLZ", total)
    shift = w.add("Sub", w.number(), headroom)
    shifted = w.add("SHL", total, w.add("Sub", headroom, w.number()))
    x = w.add("Add", w.add("Mul", shifted, w.number()), w.number())
    for _ in range(_NEWTON_STEPS):
        left = w.add("Sub", w.number(), w.add("Mul", x, shifted))
        x = w.add("Add", x, w.add("Mul", w.add("Mul", x, left), w.number()))
    return shift, x


def _reciprocal16(w: _Writer, total: View) -> tuple[View, View]:
    headroom = w.add("CLZ", total)
    shift = w.add("Sub", w.number(), headroom)
    rest = w.add("Sub", total, w.add("SHL", w.number(), shift))
    scaled = w.add("Asr", w.add("SHL", rest, headroom), w.number())
    index = w.add("Sub", scaled, w.number(), bits=16)
    return shift, w.add("LUT", index, bits=16, table=_WIDE_TABLE_BYTES)
