"""How well a prediction agrees with a referee, and what two simple predictors make of the same networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from research.npu.table import ADD, AVG_POOL, COMPARE, CONV, DENSE, DEPTHWISE, MAX_POOL, MUL, LayerTable

FOLDS = 5


def mape_percent(predicted: np.ndarray, true: np.ndarray) -> float:
    """Mean of |predicted - true| / true, in percent; both [N], true > 0."""
    return float(np.mean(np.abs(predicted - true) / true) * 100)


def kendall_tau(predicted: np.ndarray, true: np.ndarray) -> float:
    """Kendall's tau-b of two [N]: pairs ordered alike less pairs ordered otherwise, of all. 0 where one is constant."""
    value = float(stats.kendalltau(predicted, true).statistic)
    return value if np.isfinite(value) else 0.0


def spearman(predicted: np.ndarray, true: np.ndarray) -> float:
    """Spearman's rank correlation of two [N]; 0 where one is constant."""
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return 0.0
    return float(stats.spearmanr(predicted, true).statistic)


def sign_share(predicted: np.ndarray, true: np.ndarray, least: np.ndarray | float) -> float:
    """Share of changes [N] whose sign is predicted, of those with |true| > least; 1 where there is none."""
    counted = np.abs(true) > least
    return float(np.mean(np.sign(predicted[counted]) == np.sign(true[counted]))) if counted.any() else 1.0


def interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    predicted: np.ndarray,
    true: np.ndarray,
    *,
    seed: int = 0,
    draws: int = 200,
) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic of two [N], resampled as pairs."""
    rng = np.random.default_rng(seed)
    picked = rng.integers(0, len(true), (draws, len(true)))
    low, high = np.percentile([statistic(predicted[i], true[i]) for i in picked], [2.5, 97.5])
    return float(low), float(high)


def features(table: LayerTable) -> np.ndarray:
    """[5] of a network: MACs of sums over channels, MACs of depthwise layers, weights, elements that layers make,
    operations that are no layer."""
    op = np.asarray(table.op)
    macs, weights = np.asarray(table.layer_macs, np.float64), np.asarray(table.weights * table.repeats)
    made = np.asarray(table.oh * table.ow * table.oc, np.float64)
    full = np.isin(op, (CONV, DENSE))
    light = np.isin(op, (ADD, MUL, COMPARE, MAX_POOL, AVG_POOL))
    depthwise = macs[op == DEPTHWISE].sum()
    return np.array([macs[full].sum(), depthwise, weights.sum(), made[~light].sum(), made[light].sum()])


def macs_only(rows: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Predictions [N] of one number a MAC: MACs (the first two of `features`) times the median ratio of the rest."""
    macs = rows[:, 0] + rows[:, 1]
    return _held_out(macs[:, None], true, lambda x, y: np.array([np.median(y / x[:, 0])]))


def regression(rows: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Predictions [N] of a linear model of the 5 features, least squares of the relative error, held out in folds."""
    scaled = rows / np.maximum(rows.max(axis=0), 1e-9)
    full = np.concatenate([scaled, np.ones((len(rows), 1))], axis=1)
    return _held_out(full, true, lambda x, y: np.linalg.lstsq(x / y[:, None], np.ones(len(y)), rcond=None)[0])


def _held_out(
    rows: np.ndarray, true: np.ndarray, fit: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """rows [N, F] @ what `fit` makes of the other folds."""
    fold, found = np.arange(len(true)) % FOLDS, np.zeros(len(true))
    for number in range(FOLDS):
        inside = fold == number
        if inside.any():
            others = ~inside if (~inside).any() else inside
            found[inside] = rows[inside] @ fit(rows[others], true[others])
    return found
