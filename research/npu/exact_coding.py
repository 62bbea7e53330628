"""Bytes of a stream of weights after Arm's lossless encoder: palette, Golomb-Rice codes, runs of zeros.

After `update_palette`, `create_palette`, `search_grc_params`, `encode_slice` and `ml_encode_fwd` of the `mlw_codec`
in ethos-u-vela 5.2.0. The encoder changes its code within a stream where that saves 40 bits; here a stream has the
one code that suits all of it best.
"""

from typing import NamedTuple

import numpy as np

from research.npu.exact_geometry import up

_CODES = tuple((div, trunc) for trunc in (False, True) for div in range(6))
_ZERO_DIVS = (0, 1, 2, 3)
_CHUNK, _SHORT_CHUNK = 12, 8  # symbols written together
_SLICE, _SECTION = (1 << 15) - 1, 128 * 1024  # most weights under one header, and under one palette
_HEADER_BITS, _PALETTE_BITS, _END_BITS = 23, 13, 3
_UNIT_BITS = 128  # a stream ends on a whole one
_ZERO_SHARE, _SHORTEST_RUN = 5, 2
_FAST_HEADER_BITS = 256


class Coded(NamedTuple):
    """An encoded stream."""

    size: int  # bytes
    zeros: int  # that are coded as runs
    distinct: int  # values


class _Palette(NamedTuple):
    index: np.ndarray  # of each of 256 values, from -128
    size: int
    bits: int  # of an entry
    plain_bits: int  # of a weight that is written as it is; 0: it cannot be


def counts_of(values: np.ndarray) -> np.ndarray:
    """How often each of the values -128 to 127 is there, int [256]."""
    return np.roll(np.bincount(values.view(np.uint8).ravel(), minlength=256), 128)


def may_run(counts: np.ndarray) -> bool:
    """Are there so many zeros that runs of them may be coded apart?"""
    return bool(counts[128] > _ZERO_SHARE * np.delete(counts, 128).max(initial=0))


def coded(counts: np.ndarray, stream: np.ndarray | None = None) -> Coded:
    """The size of a stream that holds `counts` [256] of each value.

    Args:
      stream: the values in their order; asked for where `may_run`.
    """
    runs = _runs(stream) if stream is not None and may_run(counts) else None
    if runs is not None and int(runs[runs >= _SHORTEST_RUN].sum()) < counts[128] // 2:
        runs = None
    own = counts.copy()
    if runs is not None:
        own[128] = 0
    total = int(own.sum())
    palette = _palette(own)
    sections = max(-(-int(counts.sum()) // _SECTION), 1)
    bits = sections * (_PALETTE_BITS + palette.size * palette.bits)
    bits += max(-(-total // _SLICE), sections) * _HEADER_BITS + _END_BITS
    if total:
        bits += _weight_bits(own, palette)
    if runs is not None:
        bits += _run_bits(runs)
    zeros = int(counts[128]) if runs is not None else 0
    return Coded(up(bits, _UNIT_BITS) // 8, zeros, int(np.count_nonzero(counts)))


def _runs(stream: np.ndarray) -> np.ndarray:
    """Zeros before each other value, and after the last."""
    places = np.flatnonzero(stream)
    return np.diff(places, prepend=-1, append=len(stream)) - 1


_FOLDED = np.array([(abs(v) << 1) | (v < 0) for v in range(-128, 128)])


def _palette(counts: np.ndarray) -> _Palette:
    """Palette and index of each value (create_palette, create_inverse_palette)."""
    used = np.flatnonzero(counts)
    if not used.size:
        return _Palette(np.zeros(256, np.int64), 0, 2, 0)
    folded = _FOLDED[used]
    order = np.lexsort((folded, counts[used]))[::-1]  # the most frequent first, of equals the larger
    most, all_in = int(folded.max()), used.size <= 32
    size = 32 if all_in else min(32, 511 - most)
    kept = order[:size]
    if counts[used[kept]].sum() >= counts.sum() // 2:
        size, widest = max(len(kept), 2), int(folded[kept].max())
    else:
        size, widest = 0, most
    bits = max(int(widest).bit_length(), 2)
    offset = min(int(folded.min()), 31)
    index = size - offset + _FOLDED
    if size:
        index[used[kept]] = np.arange(len(kept))
    plain = (size - 1).bit_length() if all_in and size else bits if not size else 0
    return _Palette(index, size, bits, plain)


def _weight_bits(counts: np.ndarray, palette: _Palette) -> int:
    """Bits of all weights in their best code."""
    used = np.flatnonzero(counts)
    index, n = palette.index[used], counts[used]
    total = int(n.sum())
    best = total * palette.plain_bits if palette.plain_bits else None
    for div, trunc in _CODES:
        q = index >> div
        if int(q.max()) > (2 if trunc else 31):
            continue
        each = np.minimum(q + 1, 2) if trunc else q + 1
        symbols = total if trunc else int((n * (q // 2 + 1)).sum())
        bits = int((n * each).sum()) + total * div + -symbols % _CHUNK
        best = bits if best is None else min(best, bits)
    return best or 0


def _run_bits(runs: np.ndarray) -> int:
    """Bits of all lengths of runs of zeros in their best code."""
    found = []
    for div in _ZERO_DIVS:
        q = int((runs >> div).sum()) + runs.size
        found.append(q + runs.size * div + -q % (_CHUNK if div < 3 else _SHORT_CHUNK))
    return min(found)


def fast_size(count: int, distinct: int, *, sparse: bool) -> int:
    """Bytes of so many weights in the fast format, all cores in one stream: 2, 4 or 8 bits each (ml_encode_fwd)."""
    bits = 8 if sparse else 2 if distinct <= 4 else 4 if distinct <= 16 else 8
    return up(_FAST_HEADER_BITS + count * bits, _FAST_HEADER_BITS) // 8
