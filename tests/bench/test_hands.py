"""The bench of rendered hands: rays are rays, and what misses a bar is said."""

import numpy as np

from research.bench.hands import _AT_MOST, BAR_PEER, BARS, cast, failures


def test_a_ray_meets_the_nearest_triangle_through_its_pixel() -> None:
    square = np.asarray([[0, 0], [8, 0], [8, 8], [0, 8]], float)
    near = np.concatenate([square, np.full((4, 1), 50.0)], axis=1)
    far = np.concatenate([square * 2, np.full((4, 1), 90.0)], axis=1)
    triangles = np.asarray([[0, 2, 1], [0, 3, 2], [4, 6, 5], [4, 7, 6]])
    found, sure = cast(np.concatenate([near, far]), triangles, np.asarray([[2.3, 5.1], [12.3, 4.1], [40.0, 40.0]]))
    np.testing.assert_allclose(found[:2], [50.0, 90.0])
    assert np.isinf(found[2])
    assert sure[2]


def test_what_misses_is_said() -> None:
    good = dict(BARS)
    assert failures(good) == []
    for name, bar in BARS.items():
        worse = bar * 2 + 1 if name in _AT_MOST else bar * 0.5 - 1
        (said,) = failures(good | {name: worse})
        assert said.startswith(name)
    assert failures(good | {"peer_judged": {"mean": BAR_PEER * 2}})
