"""Labels are what rays cast through the same hands say, and fit the pictures."""

import jax
import jax.numpy as jnp
import numpy as np

from research.bench.hands import labels_agree
from research.data.labels import labels_at
from research.data.synthetic import RenderedHands, examples_at

SPEC = RenderedHands(size_px=32)


def test_visibility_and_depth_are_what_rays_say() -> None:
    assert min(labels_agree(50, size_px=32).values()) > 0.995


def test_labels_belong_to_the_pictures() -> None:
    told = jax.device_get(labels_at(SPEC, 3, jnp.arange(16)))
    drawn = jax.device_get(examples_at(SPEC, 3, jnp.arange(16)))
    np.testing.assert_allclose(told.keypoints, drawn["keypoints"], atol=1e-6)
    assert ((told.mask > 0) == np.isfinite(told.depth_mm)).all()
    assert 0.05 < told.mask.mean() < 0.7
    assert 0.4 < told.visible.mean() < 0.98
    row, column = np.floor(told.keypoints * 32).astype(int).clip(0, 31)[..., ::-1].transpose(2, 0, 1)
    on = told.mask[np.arange(16)[:, None], row, column]
    assert on[told.visible].mean() > 0.9
