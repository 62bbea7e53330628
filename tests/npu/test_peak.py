"""The SRAM peak is the largest sum of live tensors; the soft one lies just above it and has its slope."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.npu.peak import peak_kb
from tests.npu.networks import rows

SOFT_KB = 0.05


def test_peak_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        widths = rng.integers(1, 200, 6)
        table = rows(*({"oc": float(w), "oh": 8, "ow": 4} for w in widths))
        born = np.arange(6)
        dies = np.minimum(born + rng.integers(-1, 4, 6), 5)
        sizes = [32 * -(-w // 16) * 16 / 1024 for w in widths]
        live = [sum(s for s, b, d in zip(sizes, born, dies, strict=True) if b <= t <= d) for t in range(6)]
        hard = float(peak_kb(table, jnp.asarray(born), jnp.asarray(dies)))
        soft = float(peak_kb(table, jnp.asarray(born), jnp.asarray(dies), softness_kb=SOFT_KB))
        assert hard == pytest.approx(max(live), rel=1e-6)
        assert hard <= soft * (1 + 1e-6) <= hard + SOFT_KB * np.log(6) + 1e-3


def test_soft_peak_has_the_slope_of_what_is_live() -> None:
    table = rows(*({"oc": w, "oh": 8, "ow": 8} for w in (64.0, 640.0, 32.0)))
    born, dies = jnp.arange(3), jnp.array([1, 2, 2])
    slope = jax.grad(lambda oc: peak_kb(table._replace(oc=oc), born, dies, softness_kb=SOFT_KB))(table.oc)
    np.testing.assert_allclose(slope, [64 / 1024, 64 / 1024, 0.0], atol=1e-6)


def test_a_softness_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="softness_kb must be positive"):
        peak_kb(rows({}), jnp.zeros(1), jnp.zeros(1), softness_kb=0.0)
