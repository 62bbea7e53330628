"""Distillation: gradients by finite differences, no gradient into the teacher, every wrong pair named."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import nets
from research.squeeze import Distill
from research.squeeze.distill import attention_loss, attention_map
from tests.squeeze.samples import NET, context, images, setting, weights

RNG = np.random.default_rng(0)
FEATURES, OTHER = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(2, 3, 4, 7))
OUTPUTS, TAUGHT = RNG.normal(size=(2, 21, 2)), RNG.normal(size=(2, 21, 2))


def teach(frozen: Any, pixels: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A teacher whose outputs and taps depend on its frozen weight and on the images."""
    level = frozen["w"] * jnp.mean(pixels)
    return TAUGHT * level, {"theirs": OTHER + level}


def terms(link: Distill, outputs: Any, features: Any, frozen: Any) -> dict[str, jax.Array]:
    """The terms of a link for given outputs and one tap, on images of mean 0.5."""
    transform = link.build(setting(teacher=teach))
    batch = {"image": jnp.full((2, 9, 9), 0.5, jnp.asarray(outputs).dtype)}
    return transform.terms(context(outputs=outputs, taps={"b0/add": features}, frozen=frozen, batch=batch))


LINK = Distill(output=0.75, attention=0.25, pairs=(("b0/add", "theirs"),))


def by_differences(fn: Any, at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of a scalar function, in float64."""
    out = np.zeros(at.shape)
    for i in np.ndindex(at.shape):
        move = np.zeros(at.shape)
        move[i] = step
        out[i] = (float(fn(jnp.asarray(at + move))) - float(fn(jnp.asarray(at - move)))) / (2 * step)
    return out


def test_gradients_by_finite_differences() -> None:
    with jax.enable_x64(True):
        frozen = {"w": jnp.asarray(1.5)}

        def loss(outputs: Any, features: Any) -> jax.Array:
            return sum(terms(LINK, outputs, features, frozen).values(), jnp.zeros(()))

        loss = jax.jit(loss)
        into_outputs, into_features = jax.grad(loss, (0, 1))(jnp.asarray(OUTPUTS), jnp.asarray(FEATURES))
        assert into_features.dtype == jnp.float64
        np.testing.assert_allclose(
            into_outputs, by_differences(lambda o: loss(o, FEATURES), OUTPUTS), rtol=1e-5, atol=1e-9
        )
        np.testing.assert_allclose(
            into_features, by_differences(lambda f: loss(OUTPUTS, f), FEATURES), rtol=1e-5, atol=1e-9
        )
        assert float(jnp.abs(into_features).max()) > 1e-4


def test_values_by_hand() -> None:
    frozen = {"w": jnp.asarray(2.0)}
    found = terms(LINK, jnp.asarray(OUTPUTS, jnp.float32), jnp.asarray(FEATURES, jnp.float32), frozen)
    assert float(found["output"]) == pytest.approx(0.75 * np.abs(OUTPUTS - TAUGHT).mean(), rel=1e-5)

    def unit(x: np.ndarray) -> np.ndarray:
        energy = np.square(x).sum(axis=3).reshape(len(x), -1)
        return energy / np.sqrt(np.square(energy).sum(axis=1, keepdims=True))

    distance = np.square(unit(FEATURES) - unit(OTHER + 1.0)).sum(axis=1).mean()
    assert float(found["attention"]) == pytest.approx(0.25 * distance, rel=1e-4)
    assert distance > 0.01


def test_no_gradient_reaches_the_teacher() -> None:
    def loss(frozen: Any) -> jax.Array:
        return sum(terms(LINK, jnp.asarray(OUTPUTS), jnp.asarray(FEATURES), frozen).values(), jnp.zeros(()))

    value, grad = jax.value_and_grad(loss)({"w": jnp.asarray(1.5)})
    assert float(grad["w"]) == 0.0
    assert float(value) != float(loss({"w": jnp.asarray(1.6)}))  # though the loss depends on it


def test_a_student_equal_to_its_teacher_has_nothing_to_learn() -> None:
    params, norm_stats = weights()

    def teacher(frozen: Any, pixels: jax.Array) -> tuple[jax.Array, Any]:
        out = nets.forward(NET, *frozen, pixels)
        return out.keypoints, out.taps

    transform = Distill(pairs=(("b0/add", "b0/add"), ("neck", "neck"))).build(setting(teacher=teacher))
    out = nets.forward(NET, params, norm_stats, images())
    ctx = context(
        outputs=out.keypoints, taps=out.taps, frozen=(params, norm_stats), batch={"image": images()}
    )
    assert {name: float(value) for name, value in transform.terms(ctx).items()} == {
        "output": 0.0,
        "attention": 0.0,
    }


def test_pairs_are_averaged_and_none_means_outputs_only() -> None:
    taps = {"b0/add": jnp.asarray(FEATURES), "stem": jnp.asarray(FEATURES[..., :2])}
    batch, frozen = {"image": jnp.ones((2, 9, 9))}, {"w": jnp.asarray(1.0)}
    ctx = context(outputs=jnp.asarray(OUTPUTS), taps=taps, frozen=frozen, batch=batch)

    def attention(*students: str) -> float:
        link = Distill(attention=1.0, pairs=tuple((student, "theirs") for student in students))
        return float(link.build(setting(teacher=teach)).terms(ctx)["attention"])

    both = attention("b0/add", "stem")
    assert both == pytest.approx((attention("b0/add") + attention("stem")) / 2, rel=1e-5)
    assert set(Distill().build(setting(teacher=teach)).terms(ctx)) == {"output"}


@pytest.mark.parametrize("scale", [1e-2, 3.0, -1e3])
def test_attention_does_not_depend_on_the_scale(scale: float) -> None:
    x = jnp.asarray(FEATURES, jnp.float32)
    np.testing.assert_allclose(attention_map(scale * x), attention_map(x), rtol=1e-3)
    np.testing.assert_allclose(jnp.linalg.norm(attention_map(x), axis=1), 1.0, rtol=1e-5)
    assert attention_map(x).shape == (2, 12)
    np.testing.assert_allclose(attention_map(x[..., ::-1]), attention_map(x), rtol=1e-5)
    assert not np.allclose(attention_map(x[:, ::-1]), attention_map(x))


def test_a_dead_plane_has_a_gradient_of_zero() -> None:
    dead, alive = jnp.zeros((1, 2, 2, 3)), jnp.ones((1, 2, 2, 3))
    value, grad = jax.value_and_grad(attention_loss)(dead, alive)
    assert float(value) == pytest.approx(1.0, rel=1e-4)
    np.testing.assert_array_equal(grad, np.zeros(dead.shape))


def test_planes_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"planes \(3, 4\) and \(4, 3\): pair sites of one size"):
        attention_loss(jnp.ones((2, 3, 4, 5)), jnp.ones((2, 4, 3, 5)))
    with pytest.raises(ValueError, match="pair sites of one size"):
        terms(LINK, jnp.asarray(OUTPUTS), jnp.ones((2, 5, 5, 4)), {"w": 1.0})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="distillation needs a teacher"):
        Distill().build(setting())
    with pytest.raises(ValueError, match="the student has no site 'b0/ad'; did you mean 'b0/add'"):
        Distill(pairs=(("b0/ad", "theirs"),)).build(setting(teacher=teach))
    link = Distill(pairs=(("b0/add", "their"),))
    with pytest.raises(ValueError, match="the teacher has no site 'their'; did you mean 'theirs'"):
        terms(link, jnp.asarray(OUTPUTS), jnp.asarray(FEATURES), {"w": 1.0})


def test_smoke_uses_sites_of_the_smoke_network() -> None:
    assert {site for pair in LINK.smoke().pairs for site in pair} <= set(NET.smoke().sites())
    assert (LINK.smoke().output, LINK.smoke().attention) == (0.75, 0.25)
