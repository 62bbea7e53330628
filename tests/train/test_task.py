"""Losses on keypoints: each against its formula in numpy, and the cross-entropy of axes against its minimum."""

import dataclasses as dc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import nets
from research.nets.heads import places
from research.spec import LOSSES, Optim
from research.train.task import axis_loss, task_loss, task_terms, wing_loss


def two_hands() -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.random.default_rng(0).uniform(size=(2, 3, 21, 2)).astype(np.float32))


def test_task_loss_is_the_mean_distance() -> None:
    a, b = two_hands()
    assert float(task_loss(a, b)) == pytest.approx(np.sqrt(((a - b) ** 2).sum(2)).mean(), abs=1e-4)
    grad = jax.grad(task_loss)(jnp.asarray(a), jnp.asarray(a))  # a perfect prediction has a gradient
    assert np.all(np.asarray(grad) == 0)


def test_every_loss_is_its_formula() -> None:
    a, b = two_hands()
    apart = (a - b).astype(np.float64)
    wing = [
        0.1 * np.log(1 + x / 0.02) if x < 0.1 else x - 0.1 + 0.1 * np.log(6) for x in np.abs(apart).ravel()
    ]
    wanted = {
        "distance": np.sqrt((apart**2).sum(2)).mean(),
        "l1": np.abs(apart).mean(),
        "mse": (apart**2).mean(),
        "wing": np.mean(wing),
    }
    assert set(wanted) == set(LOSSES)
    for name, value in wanted.items():
        terms = task_terms(dc.replace(Optim(), loss=name), jnp.asarray(a), jnp.asarray(a).reshape(3, 42), b)
        assert set(terms) == {"task"}
        assert float(terms["task"]) == pytest.approx(value, rel=1e-4)
    with pytest.raises(ValueError, match=r"optim\.loss='l3' must be one of distance, l1, wing, mse"):
        Optim(loss="l3")


def test_the_wing_is_whole_at_its_bend_and_steeper_near_zero() -> None:
    assert float(wing_loss(jnp.asarray([0.0]))) == 0.0
    low, high = (float(wing_loss(jnp.asarray([x]))) for x in (0.1 - 1e-5, 0.1 + 1e-5))
    assert low == pytest.approx(high, abs=1e-4)
    slope = jax.grad(wing_loss)
    assert float(slope(jnp.asarray([0.001]))[0]) > 4 * float(slope(jnp.asarray([0.2]))[0])


@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
def test_axes_are_best_at_the_truth(kind: str) -> None:
    bins, at = 16, 5
    centres = places(bins, kind == "heatmap")
    truth = np.full((1, 21, 2), centres[at], np.float32)

    def loss(offset: int) -> float:
        bell = -0.5 * (np.arange(bins) - at - offset) ** 2
        if kind == "simcc":
            raw = np.tile(bell, (1, 42))
        else:  # 4 x 4 places of 4 x 4 cells
            plane = (bell[:, None] + bell[None, :]).reshape(4, 4, 4, 4).transpose(0, 2, 1, 3)
            raw = np.tile(plane.reshape(4, 4, 1, 16), (1, 1, 21, 1)).reshape(1, 4, 4, 21 * 16)
        raw = jnp.asarray(raw, jnp.float32)
        assert float(jnp.abs(nets.decode(raw) - centres[at + offset]).max()) < 0.01
        return float(axis_loss(raw, jnp.asarray(truth)))

    losses = [loss(offset) for offset in (0, 1, 2, 3)]
    bell = np.exp(-0.5 * (np.arange(bins) - at) ** 2)
    entropy = -np.sum(bell / bell.sum() * np.log(bell / bell.sum()))
    assert losses[0] == pytest.approx(entropy, rel=1e-4)
    assert losses == sorted(losses)


def test_heads_of_probabilities_get_their_term() -> None:
    raw, truth = jnp.zeros((2, 42 * 8)), jnp.full((2, 21, 2), 0.5)
    terms = task_terms(Optim(axes=0.5), nets.decode(raw), raw, truth)
    assert float(terms["task"]) < 0.01
    assert float(terms["axes"]) == pytest.approx(0.5 * np.log(8), rel=1e-5)
