"""A few named gains of a chip, fitted to measurements: the user's own NPU, described by a file and a table of times.

A layer takes max(gain of its kind * NPU cycles, gain * SRAM cycles, gain * flash cycles) and a fixed time to start.
All gains are positive, near 1 unless the measurements say otherwise (a penalty on their logarithms), fitted to the
logarithm of the times. Residuals are of networks that were held out of the fit (of layers, where there is one network).
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares

from research.npu import table as kind
from research.npu.measured import Measured
from research.npu.named import AnyChip, cost_on
from research.npu.network import Network
from research.npu.rounding import EXACT, Rounding
from research.npu.table import LayerTable

KINDS = ("conv", "depthwise", "dense", "other")
GAINS = (*KINDS, "sram", "flash", "start_us")
_START_US = 0.1  # where the fit starts from
_PRIOR = 0.05  # weight of a gain's logarithm, in residuals: 5 % of error for a gain of e
_FOLDS, _FEWEST = 10, 4
_INTERVAL = (5, 95)
FEATURES = ("oh", "ow", "oc", "ic", "kh", "bits", "sparse")


class ExtrapolationWarning(UserWarning):
    """A prediction for a network outside the range of what was measured."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Gains of a chip and how far they are off where they were not fitted.

    gains: by name, see `GAINS`; `start_us` in microseconds a layer. held_out_percent: mean |predicted / measured - 1|
    of held-out measurements; before_percent: the same without gains. interval_percent: 90 % of held-out residuals.
    ranges: {kind: {feature: (lowest, highest)}} of the measured layers.
    """

    chip: AnyChip
    gains: Mapping[str, float]
    measurements: int
    held_out_percent: float
    before_percent: float
    interval_percent: tuple[float, float]
    ranges: Mapping[str, Mapping[str, tuple[float, float]]]

    def as_dict(self) -> dict[str, Any]:
        """Numbers and words only, as JSON takes them."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return found | {"chip": self.chip.name}


class Parts(NamedTuple):
    """What the gains weigh, float [L], milliseconds; `kinds` is one-hot [L, 4]; `starts` 1 where a layer runs."""

    kinds: Any
    npu: Any
    sram: Any
    flash: Any
    starts: Any


def calibrate(chip: AnyChip, measured: Sequence[Measured], networks: Mapping[str, Network]) -> Calibration:
    """Fits the gains of `chip`.

    Args:
      chip: as the user describes it.
      measured: layers or whole networks.
      networks: by the name that the measurements use.

    Raises:
      ValueError: fewer than 4 measurements, or one of a layer that does not exist or that costs nothing.
    """
    if len(measured) < _FEWEST:
        raise ValueError(f"{len(measured)} measurements are too few: at least {_FEWEST}")
    parts, sums, used = _stack(chip, measured, networks)
    ms = np.array([one.ms for one in measured])
    groups = _folds([one.network for one in measured])
    held = np.zeros(len(ms))
    for fold in np.unique(groups):
        out = groups == fold
        gains = _fit(parts, sums[~out], ms[~out])
        held[out] = sums[out] @ layer_ms(parts, gains)
    residual = 100 * (held / ms - 1)
    before = 100 * np.abs(sums @ layer_ms(parts, _unfitted()) / ms - 1)
    low, high = np.percentile(residual, _INTERVAL)
    return Calibration(
        chip=chip, gains=dict(zip(GAINS, _fit(parts, sums, ms).tolist(), strict=True)), measurements=len(ms),
        held_out_percent=float(np.abs(residual).mean()), before_percent=float(before.mean()),
        interval_percent=(float(low), float(high)), ranges=_ranges(used),
    )  # fmt: skip


def predict_ms(calibration: Calibration, table: LayerTable, *, warn: bool = True) -> float:
    """Milliseconds of a network on the calibrated chip; an `ExtrapolationWarning` outside what was measured."""
    strange = outside(calibration, table) if warn else ()
    if strange:
        more = f", and {len(strange) - 1} more" if len(strange) > 1 else ""
        warnings.warn(f"extrapolates: {strange[0]}{more}", ExtrapolationWarning, stacklevel=2)
    gains = jnp.asarray([calibration.gains[name] for name in GAINS], jnp.float32)
    return float(calibrated_ms(table, calibration.chip, gains))


def calibrated_ms(
    table: LayerTable, chip: AnyChip, gains: jax.Array, *, rounding: Rounding = EXACT
) -> jax.Array:
    """The same as a scalar array, jittable and differentiable in the table and the gains [7] (in `GAINS` order)."""
    return jnp.sum(layer_ms(_parts(table, chip, rounding), gains, jnp.maximum))


def outside(calibration: Calibration, table: LayerTable) -> tuple[str, ...]:
    """What of a network lies outside the measured range, a line for each kind of layer and feature."""
    found = []
    for name, spans in _ranges(_by_kind(table)).items():
        if name not in calibration.ranges:
            found.append(f"no {name} layer was measured")
            continue
        for feature, (low, high) in spans.items():
            least, most = calibration.ranges[name][feature]
            if low < least or high > most:
                told = f"{feature} of {name} layers is {low:g} to {high:g}"
                found.append(f"{told}, measured were {least:g} to {most:g}")
    return tuple(found)


def layer_ms(parts: Parts, gains: Any, maximum: Any = np.maximum) -> Any:
    """Milliseconds of each layer, [L], under gains [7]."""
    work = maximum(parts.npu * (parts.kinds @ gains[:4]), parts.sram * gains[4])
    return maximum(work, parts.flash * gains[5]) + parts.starts * gains[6] / 1000


def _parts(table: LayerTable, chip: AnyChip, rounding: Rounding = EXACT) -> Parts:
    cost, per_ms = cost_on(table, chip, rounding=rounding), chip.cycles_per_ms
    codes = _kind_index(table.op)
    npu, sram, flash = (c / per_ms for c in (cost.npu_cycles, cost.sram_cycles, cost.flash_cycles))
    kinds = (codes[:, None] == jnp.arange(len(KINDS))[None, :]).astype(jnp.float32)
    return Parts(kinds, npu, sram, flash, (cost.cycles > 0).astype(jnp.float32))


def _kind_index(op: jax.Array) -> jax.Array:
    convolves = (op == kind.CONV) | (op == kind.TRANSPOSE_CONV)
    dense = (op == kind.DENSE) | (op == kind.MATMUL)
    return jnp.select([convolves, op == kind.DEPTHWISE, dense], [0, 1, 2], 3)


def _stack(
    chip: AnyChip, measured: Sequence[Measured], networks: Mapping[str, Network]
) -> tuple[Parts, np.ndarray, dict[str, np.ndarray]]:
    """All networks' parts end to end, which of them each measurement sums [M, L], and the features measured."""
    pieces = {
        name: Parts(*(np.asarray(p, np.float64) for p in _parts(n.table, chip)))
        for name, n in networks.items()
    }
    starts = dict(zip(pieces, np.cumsum([0, *(len(p.npu) for p in pieces.values())]).tolist(), strict=False))
    stacked = Parts(*(np.concatenate(column) for column in zip(*pieces.values(), strict=True)))
    sums = np.zeros((len(measured), len(stacked.npu)))
    for row, (name, layer, _) in enumerate(measured):
        at, names = starts[name], networks[name].names
        if not layer:
            sums[row, at : at + len(names)] = 1
        elif layer not in names:
            raise ValueError(f"{name} has no layer {layer!r}: a layer is called by the tensor it makes")
        else:
            sums[row, at + names.index(layer)] = 1
        if not (sums[row] @ stacked.starts):
            raise ValueError(f"{layer or name!r} costs nothing in the model (it runs inside another layer)")
    tables = [_features(network.table) for network in networks.values()]
    index = np.concatenate([np.asarray(_kind_index(n.table.op)) for n in networks.values()])
    features, seen = np.concatenate(tables), sums.any(axis=0) & (stacked.starts > 0)
    return stacked, sums, {name: features[seen & (index == i)] for i, name in enumerate(KINDS)}


def _features(table: LayerTable) -> np.ndarray:
    return np.stack([np.asarray(getattr(table, name), np.float64) for name in FEATURES], axis=1)


def _by_kind(table: LayerTable) -> dict[str, np.ndarray]:
    index, features = np.asarray(_kind_index(table.op)), _features(table)
    runs = np.asarray((table.op != kind.FREE) & ~((table.carried > 0) & (table.op > kind.DENSE)))
    return {name: features[runs & (index == i)] for i, name in enumerate(KINDS)}


def _ranges(features: Mapping[str, np.ndarray]) -> dict[str, dict[str, tuple[float, float]]]:
    return {
        name: {f: (float(c.min()), float(c.max())) for f, c in zip(FEATURES, rows.T, strict=True)}
        for name, rows in features.items()
        if len(rows)
    }


def _unfitted() -> np.ndarray:
    return np.array([1.0] * 6 + [0.0])


def _fit(parts: Parts, sums: np.ndarray, ms: np.ndarray) -> np.ndarray:
    """Gains [7] that bring the logarithms of predicted and measured closest, robust to a few outliers."""
    scale = np.array([1.0] * 6 + [_START_US])
    seen = sums.any(axis=0)

    def residuals(logs: np.ndarray) -> np.ndarray:
        made = sums[:, seen] @ layer_ms(Parts(*(p[seen] for p in parts)), scale * np.exp(logs))
        return np.concatenate([np.log(made / ms), _PRIOR * logs])

    found = least_squares(residuals, np.zeros(len(GAINS)), bounds=(-6, 6), loss="soft_l1", f_scale=0.1)
    return np.asarray(scale * np.exp(found.x))


def _folds(names: Sequence[str]) -> np.ndarray:
    """Which fold each measurement is held out in: whole networks, or layers where there is one network."""
    different = list(dict.fromkeys(names))
    number = np.array([different.index(name) for name in names])
    return (number if len(different) > 1 else np.arange(len(names))) % _FOLDS
