"""Sampled poses stay inside anatomical limits, bend as real hands do, and hold the recorded poses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.hand.pose import (
    PERSON_NUMBERS,
    POSE_NUMBERS,
    VIEW_NUMBERS,
    recorded_turns,
    rotation,
    sample_person,
    sample_turns,
    sample_view,
    turned,
)
from research.hand.rig import recorded_poses

U = jax.random.uniform(jax.random.key(3), (2000, POSE_NUMBERS), minval=1e-7)
TURNS = np.asarray(jax.jit(jax.vmap(sample_turns))(U))
LONG = np.degrees(TURNS[:, 5:].reshape(-1, 4, 5, 3))


def test_rotation_vectors_of_recorded_poses_give_them_back() -> None:
    np.testing.assert_allclose(turned(jnp.asarray(recorded_turns())), recorded_poses(), atol=2e-6)


def test_a_turn_about_an_axis_is_right_handed() -> None:
    np.testing.assert_allclose(rotation(2, jnp.asarray(np.pi / 2)) @ np.array([1.0, 0, 0]), [0, 1, 0], atol=1e-6)


def test_hinges_stay_inside_their_limits() -> None:
    bends = -LONG[:, :, 1:4, 0]
    assert (bends.min(axis=(0, 1)) > [-25.1, -8.1, -10.1]).all()
    assert (bends.max(axis=(0, 1)) < [92.1, 112.1, 82.1]).all()
    assert np.abs(TURNS[:, 0]).max() == 0
    still = recorded_turns()[:, 7:9, 1:]  # an index finger's hinges bend about x alone
    held = TURNS[:, 7:9, 1:]
    assert (held >= still.min(axis=0) - 1e-6).all()
    assert (held <= still.max(axis=0) + 1e-6).all()


def test_fingers_do_not_cross() -> None:
    spread = LONG[:, :, 0, 1] + LONG[:, :, 1, 1]
    assert (spread[:, :-1] - spread[:, 1:]).min() > -10.1


def test_fingers_spread_as_people_spread_them() -> None:
    """An index finger and its neighbour part by up to 20 degrees and more, the first and the last by 30."""
    spread = LONG[:, :, 0, 1] + LONG[:, :, 1, 1]
    assert np.percentile(spread[:, 0] - spread[:, 1], 95) > 12
    assert np.percentile(spread[:, 0] - spread[:, 3], 95) > 28
    assert np.abs(LONG[:, :, 1, 1]).max() < 45


def test_every_choice_of_stretched_fingers_is_drawn() -> None:
    """Counting: each finger is straight or folded, and all sixteen choices come up."""
    bends = -LONG[:, :, 1:4, 0].sum(axis=2)
    straight, folded = bends < 60, bends > 130
    clear = (straight | folded).all(axis=1)
    seen = {tuple(row) for row in straight[clear].tolist()}
    assert len(seen) == 16


def test_bends_are_those_of_real_hands() -> None:
    """Percentiles 5, 50 and 95 of an index finger: base 7, 24, 82; middle 2, 16, 107; last 3, 11, 62, to 30 degrees."""
    bends = -LONG[:, 0, 1:4, 0]
    found = np.percentile(np.clip(bends, 0, None), [5, 50, 95], axis=0).T
    wanted = np.array([[7, 24, 82], [2, 16, 107], [3, 11, 62]])
    assert np.abs(found - wanted).max() < 32


def test_people_differ_but_not_too_much() -> None:
    u = jax.random.uniform(jax.random.key(4), (500, PERSON_NUMBERS), minval=1e-7)
    people = jax.vmap(sample_person)(u)
    assert 0.78 <= float(people.size.min()) < 0.85
    assert 1.05 < float(people.size.max()) <= 1.12
    stretch = np.asarray(people.stretch)
    assert stretch.shape == (500, 25, 3)
    assert stretch.min() > 0.7
    assert stretch.max() < 1.4
    assert stretch[:, 6:9].std(axis=0).min() > 0.01


@pytest.mark.parametrize(("palms", "sign"), [(1.0, -1), (0.0, 1)])
def test_palms_face_the_viewer_when_asked(palms: float, sign: int) -> None:
    u = jax.random.uniform(jax.random.key(5), (300, VIEW_NUMBERS), minval=1e-7)
    views = np.asarray(jax.vmap(lambda row: sample_view(row, jnp.asarray(0.0), palms, 0.0, 10.0))(u))
    np.testing.assert_allclose(views @ views.swapaxes(1, 2), np.broadcast_to(np.eye(3), views.shape), atol=1e-5)
    towards = sign * (views @ np.array([0, 0, -1.0]))[:, 2]  # the palm looks along -z before it is turned
    assert (towards > 0).mean() > 0.98


def test_turned_views_cover_the_sphere() -> None:
    u = jax.random.uniform(jax.random.key(6), (2000, VIEW_NUMBERS), minval=1e-7)
    way = np.asarray(jax.vmap(lambda row: sample_view(row, jnp.asarray(0.0), 0.5, 1.0))(u))[:, :, 2]
    assert np.abs(way.mean(axis=0)).max() < 0.06
    np.testing.assert_allclose((way**2).mean(axis=0), 1 / 3, atol=0.04)
