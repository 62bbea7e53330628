"""Bytes of a stream of weights after Arm's lossless encoder: palette, Golomb-Rice codes, runs of zeros.

After `update_palette`, `create_palette`, `search_grc_params`, `encode_slice` and `ml_encode_fwd` of the `mlw_codec`
in ethos-u-vela 5.2.0. The encoder goes through a stream and changes its code where that saves 40 bits; for weights
(not for runs) that is estimated here from how often each value is there.
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
_SWITCH_BITS = 40  # what another code must save
_SLICE_BITS = _HEADER_BITS + 6  # a header and half a chunk
_ZERO_SHARE, _SHORTEST_RUN = 5, 2
_FAST_HEADER_BITS = 256


class Coded(NamedTuple):
    """An encoded stream."""

    size: int  # bytes
    zeros: int  # that are coded as runs
    distinct: int  # values


class _Palette(NamedTuple):
    codes: np.ndarray  # of each of 256 values, from -128
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
      stream: the values in their order; asked for where `may_run`, or where zeros fill blocks.
    """
    gaps = _runs(stream) if stream is not None else np.zeros(0, np.int64)
    apart = may_run(counts) and int(gaps[gaps >= _SHORTEST_RUN].sum()) >= counts[128] // 2
    runs = gaps if apart else None
    own = counts.copy()
    if runs is not None:
        own[128] = 0
        if not own.any():  # a stream of zeros only: the first is written as a weight
            own[128], runs = 1, np.array([0, runs.sum() - 1])
    total = int(own.sum())
    palette = _palette(own)
    sections = max(-(-int(counts.sum()) // _SECTION), 1)
    bits = sections * (_PALETTE_BITS + palette.size * palette.bits)
    bits += max(-(-total // _SLICE), sections) * _HEADER_BITS + _END_BITS
    if total:
        bits += _weight_bits(own, palette, gaps[:0] if apart else gaps)
    if runs is not None:
        bits += _run_bits(runs)
    zeros = int(runs.sum()) if runs is not None else 0
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


def _weight_bits(counts: np.ndarray, palette: _Palette, gaps: np.ndarray) -> int:
    """Bits of all weights: in their best code, or with excursions into one that the rarest of them do not fit.

    Args:
      gaps: lengths of runs of zeros in it; long ones are an excursion into the code of a bit each.
    """
    bits, zero = _plain_bits(counts, palette)
    if zero <= 1 or not gaps.size:
        return bits
    wait = _SWITCH_BITS / (zero - 1)
    runs = gaps[gaps > max(wait, 2 * _SLICE_BITS / (zero - 1))]
    if not runs.size:
        return bits
    rest = counts.copy()
    rest[128] -= runs.sum()
    around = int(runs.size * (2 * _SLICE_BITS + _SWITCH_BITS))
    return min(bits, _plain_bits(rest, palette)[0] + int(runs.sum()) + around)


def _plain_bits(counts: np.ndarray, palette: _Palette) -> tuple[int, float]:
    """(bits of all, bits of a zero in the best code) without regard to their order."""
    used = np.flatnonzero(counts)
    index, n = palette.codes[used], counts[used]
    total = int(n.sum())
    whole: tuple[int, np.ndarray] | None = None
    if palette.plain_bits:
        whole = total * palette.plain_bits, np.full(used.size, palette.plain_bits)
    partial = list[tuple[np.ndarray, np.ndarray]]()
    for div, trunc in _CODES:
        q = index >> div
        each = (np.minimum(q + 1, 2) if trunc else q + 1) + div
        fits = q <= (2 if trunc else 31)
        if not fits.all():
            partial.append((each, fits))
            continue
        symbols = total if trunc else int((n * (q // 2 + 1)).sum())
        bits = int((n * each).sum()) + -symbols % _CHUNK
        if whole is None or bits < whole[0]:
            whole = bits, each
    if whole is None:
        return 0, 1.0
    best = float(whole[0])
    for each, fits in partial:
        best = min(best, whole[0] - _saved(n, whole[1] - each, fits))
    zero = whole[1][used == 128]
    return int(best), float(zero[0]) if zero.size else 1.0


def _saved(n: np.ndarray, less: np.ndarray, fits: np.ndarray) -> float:
    """Bits that excursions save, into a code of `less` bits a weight where it `fits`.

    Values that it does not fit end an excursion; the next begins when it would have saved `_SWITCH_BITS`. They are
    taken to be scattered at random.
    """
    inside, rare = int(n[fits].sum()), int(n[~fits].sum())
    rate = float((n * less)[fits].sum()) / max(inside, 1)
    if rate <= 0:
        return 0.0
    gap, wait = inside / (rare + 1), _SWITCH_BITS / rate
    again = np.exp(-wait / gap)  # share of gaps that are long enough
    return float(again * (rare + 1) * (gap * rate - 2 * _SLICE_BITS))


def _run_bits(runs: np.ndarray) -> int:
    """Bits of all lengths of runs of zeros, in the code that the encoder ends up with.

    It begins with the best for the first run and takes another when that is ahead by `_SWITCH_BITS` before a run.
    """
    bits = np.cumsum([(runs >> div) + 1 + div for div in _ZERO_DIVS], axis=1)
    best, first = bits.argmin(0), 0
    ahead = bits.min(0)[1:] + _SWITCH_BITS
    code = int(best[0])
    while True:
        later = np.flatnonzero(ahead[first:] < bits[code, first:-1])
        if not later.size:
            break
        first += int(later[0])
        code = int(best[first + 1])
        first += 1
    q = int((runs >> _ZERO_DIVS[code]).sum()) + runs.size
    return int(bits[code, -1]) + -q % (_CHUNK if code < 3 else _SHORT_CHUNK)


def fast_size(count: int, distinct: int, *, sparse: bool) -> int:
    """Bytes of so many weights in the fast format, all cores in one stream: 2, 4 or 8 bits each (ml_encode_fwd)."""
    bits = 8 if sparse else 2 if distinct <= 4 else 4 if distinct <= 16 else 8
    return up(_FAST_HEADER_BITS + count * bits, _FAST_HEADER_BITS) // 8
