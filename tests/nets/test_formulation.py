"""Both ways to compute a convolution agree, and agree with loops written from the definition."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.nets import formulation as fm

CASES = list(itertools.product((fm.conv, fm.depthwise), (1, 3, 5), (1, 2), ((7, 6), (8, 5))))


def arrays(kind: Callable, size: int, plane: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """`x [2,H,W,3]` and a kernel of `kind`, both around 0."""
    rng = np.random.default_rng(size)
    shape = (size, size, 3, 4) if kind is fm.conv else (size, size, 1, 3)
    x, kernel = rng.normal(size=(2, *plane, 3)), rng.normal(size=shape) / size
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


def by_definition(x: np.ndarray, kernel: np.ndarray, stride: int, depthwise: bool) -> np.ndarray:
    """SAME cross-correlation in float64: the output is ceil(size / stride), the smaller pad is before."""
    size, (n, height, width, channels) = kernel.shape[0], x.shape
    out_h, out_w = -(-height // stride), -(-width // stride)
    top = max((out_h - 1) * stride + size - height, 0) // 2
    left = max((out_w - 1) * stride + size - width, 0) // 2
    out = np.zeros((n, out_h, out_w, kernel.shape[3]))
    for row, col, i, j in itertools.product(range(out_h), range(out_w), range(size), range(size)):
        y, z = row * stride + i - top, col * stride + j - left
        if 0 <= y < height and 0 <= z < width:
            for c in range(channels):
                weights = kernel[i, j, 0] * (np.arange(channels) == c) if depthwise else kernel[i, j, c]
                out[:, row, col, :] += x[:, y, z, c][:, None] * weights[None, :]
    return out


@pytest.mark.parametrize(("kind", "size", "stride", "plane"), CASES)
def test_values_and_gradients_agree_in_every_formulation(
    kind: Callable, size: int, stride: int, plane: tuple[int, int]
) -> None:
    x, kernel = arrays(kind, size, plane)
    expected = by_definition(np.asarray(x), np.asarray(kernel), stride, kind is fm.depthwise)
    pull = jnp.asarray(np.random.default_rng(1).normal(size=expected.shape), jnp.float32)

    def both(formulation: str) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        def scalar(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = kind(x, kernel, stride, formulation)
            return jnp.sum(pull * out), out

        grads, out = jax.jit(jax.grad(scalar, (0, 1), has_aux=True))(x, kernel)
        return out, grads

    canonical, shifted = both(fm.CANONICAL), both(fm.SHIFTED)
    for out, _ in (canonical, shifted):
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    for mine, its in zip(canonical[1], shifted[1], strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=3e-5)
        assert float(jnp.abs(mine).max()) > 0.1


@pytest.mark.parametrize("shape", [(4, 8, 8, 5), (3, 7, 5, 4), (2, 6, 6, 3)])
def test_a_norm_and_its_relu6_agree_in_every_formulation(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(shape[0])
    made = rng.normal(1, 2, shape), rng.normal(1, 0.3, shape[3:]), rng.normal(0, 1, shape[3:])
    arguments = tuple(jnp.asarray(value, jnp.float32) for value in made)
    pull = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def both(formulation: str, act: Callable) -> list[jax.Array]:
        def scalar(*arguments: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            y, mean, var = fm.norm_by_batch(*arguments, 1e-5, formulation)
            return jnp.sum(pull * act(y)), (act(y), mean, var)

        return jax.tree.leaves(jax.jit(jax.grad(scalar, (0, 1, 2), has_aux=True))(*arguments))

    canonical = both(fm.CANONICAL, lambda y: jnp.clip(y, 0.0, 6.0))
    for mine, its in zip(canonical, both(fm.SHIFTED, fm.relu6), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=3e-5)


def test_relu6_has_the_gradient_of_clip_corners_included() -> None:
    x, pull = jnp.asarray([-1.0, 0.0, 0.5, 3.0, 6.0, 7.0]), jnp.arange(1.0, 7.0)
    mine, its = (
        jax.grad(lambda x, act=act: jnp.sum(pull * act(x)))(x)
        for act in (fm.relu6, lambda x: jnp.clip(x, 0.0, 6.0))
    )
    np.testing.assert_array_equal(mine, its)


def test_the_shifted_formulation_has_no_grouped_convolution() -> None:
    def primitives(formulation: str, kind: Callable, size: int) -> set[str]:
        x, kernel = arrays(kind, size, (6, 6))
        jaxpr = jax.make_jaxpr(lambda x, k: kind(x, k, 1, formulation))(x, kernel)
        return {equation.primitive.name for equation in jaxpr.jaxpr.eqns}

    for kind, size in ((fm.depthwise, 3), (fm.conv, 1)):
        assert "conv_general_dilated" in primitives(fm.CANONICAL, kind, size)
        assert "conv_general_dilated" not in primitives(fm.SHIFTED, kind, size)
    assert "conv_general_dilated" in primitives(fm.SHIFTED, fm.conv, 3)


@pytest.mark.parametrize(
    ("backend", "expected"), [("cpu", fm.SHIFTED), ("tpu", fm.CANONICAL), ("gpu", fm.CANONICAL)]
)
def test_only_a_cpu_shifts(monkeypatch: pytest.MonkeyPatch, backend: str, expected: str) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert fm.fastest() == expected
