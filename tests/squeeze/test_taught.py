"""Losses from stored features: zero for a perfect copy, against loops, and refused where the batch has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.squeeze import Context, Setting, Taught
from research.squeeze.distill import attention_loss
from research.squeeze.taught import energy_loss, mimicry_loss, similarity

RNG = np.random.default_rng(0)
SETTING = Setting(("w",), ("b1/add", "neck"), (), lambda widths: jnp.zeros(()), None)


def features(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def context(batch: dict, outputs: jax.Array, taps: dict) -> Context:
    return Context({}, {}, {}, {}, {}, {}, outputs, taps, batch, jnp.zeros(()), {})


def test_stored_energy_is_attention_transfer() -> None:
    student, teacher = features(3, 4, 4, 5), features(3, 4, 4, 9)
    energy = jnp.mean(jnp.square(teacher), axis=3)
    wanted = attention_loss(student, teacher)
    assert float(energy_loss(student, energy)) == pytest.approx(float(wanted), rel=1e-5)
    assert float(energy_loss(student, 7 * energy)) == pytest.approx(float(wanted), rel=1e-5)  # scale is free
    assert float(energy_loss(teacher, energy)) == pytest.approx(0.0, abs=1e-6)


def test_energy_of_another_plane_is_resized() -> None:
    student = jnp.zeros((1, 4, 4, 2)).at[0, 1, 2].set(1.0)
    right = jnp.zeros((1, 8, 8)).at[0, 2:4, 4:6].set(1.0)
    wrong = jnp.zeros((1, 8, 8)).at[0, 4:6, 2:4].set(1.0)
    assert float(energy_loss(student, right)) < 0.5 * float(energy_loss(student, wrong))


def test_mimicry_compares_examples_not_channels() -> None:
    student = features(6, 2, 2, 5)
    means = jnp.mean(student, axis=(1, 2))
    turn = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    assert float(mimicry_loss(student, means)) == pytest.approx(0.0, abs=1e-9)
    assert float(mimicry_loss(student, means @ jnp.asarray(turn, jnp.float32))) == pytest.approx(
        0.0, abs=1e-6
    )
    assert float(mimicry_loss(student, features(6, 11))) > 0.01
    rows = np.asarray(means, np.float64) - np.asarray(means, np.float64).mean(0)
    for i in range(6):
        products = np.array([rows[i] @ rows[j] for j in range(6)])
        np.testing.assert_allclose(similarity(means)[i], products / np.linalg.norm(products), atol=1e-4)


def test_terms_have_their_weights_and_gradients() -> None:
    outputs, taps = features(4, 21, 2), {"b1/add": features(4, 4, 4, 3)}
    batch = {
        "taught/keypoints": outputs + 0.5,
        "taught/energy/t": jnp.ones((4, 7, 7)),
        "taught/mean/t": features(4, 6),
    }
    link = Taught(output=2.0, attention=0.0, mimicry=1.0, pairs=(("b1/add", "t"),))
    terms = link.build(SETTING).terms(context(batch, outputs, taps))
    assert set(terms) == {"output", "attention", "mimicry"}
    assert float(terms["output"]) == pytest.approx(1.0)
    assert float(terms["attention"]) == 0.0
    only = Taught().build(SETTING).terms(context(batch, outputs, taps))
    assert set(only) == {"output"}
    flat = {"b1/add": jnp.zeros((4, 4, 4, 3))}  # dead features have finite gradients

    def total(x: jax.Array) -> jax.Array:
        found = link.build(SETTING).terms(context(batch, outputs, {"b1/add": x}))
        return found["attention"] + found["mimicry"]

    assert np.isfinite(np.asarray(jax.grad(total)(flat["b1/add"]))).all()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="the student has no site 'b2/add'"):
        Taught(pairs=(("b2/add", "t"),)).build(SETTING)
    with pytest.raises(ValueError, match=r"holds no 'taught/keypoints'.*TaughtHands"):
        Taught().build(SETTING).terms(context({}, features(1, 21, 2), {}))
    assert Taught(pairs=(("b5/add", "t"), ("b6", "u"))).smoke().pairs == (("b1/add", "t"),)
