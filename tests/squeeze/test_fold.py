"""Folding batch norms: the same output with fewer numbers, once."""

import jax
import numpy as np
import pytest

from research import nets
from research.nets import NORM_EPSILON
from research.pytrees import flatten
from research.squeeze import NM, Variables, compact, fold, nm_mask
from tests.squeeze.samples import KEY, NET, NOW, images, setting, weights

FORWARD = jax.jit(nets.forward, static_argnums=0)
REWRITE = fold(NORM_EPSILON)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", [np.asarray, jax.numpy.asarray])
def test_the_folded_network_computes_the_same(seed: int, kind: object) -> None:
    variables = Variables(*jax.tree.map(kind, weights(seed=seed)))
    net, folded, report = REWRITE(NET, variables, None)
    assert net == NET.folded()
    assert folded.norm_stats == {}
    assert jax.tree.map(np.shape, folded.params) == jax.tree.map(np.shape, nets.shapes(net)[0])
    assert report == {"folded": 2 + 3 * len(NET.blocks)}
    before = FORWARD(NET, *variables, images(4))
    after = FORWARD(net, *folded, images(4))
    np.testing.assert_allclose(after.keypoints, before.keypoints, rtol=1e-5, atol=1e-5)
    for site in NET.sites():
        np.testing.assert_allclose(after.taps[site], before.taps[site], rtol=1e-5, atol=1e-5)


def test_the_epsilon_is_the_norms_own() -> None:
    variables = Variables(*weights())
    tiny = jax.tree.map(lambda leaf: 1e-6 * leaf, variables.norm_stats)
    variables = variables._replace(norm_stats=tiny)
    before = FORWARD(NET, *variables, images()).taps["stem"]
    for epsilon, close in ((NORM_EPSILON, True), (1e-3, False)):
        net, folded, _ = fold(epsilon)(NET, variables, None)
        assert np.allclose(FORWARD(net, *folded, images()).taps["stem"], before, atol=1e-4) == close


def test_folding_twice_raises() -> None:
    net, folded, _ = REWRITE(NET, Variables(*weights()), None)
    with pytest.raises(ValueError, match="nothing to fold: this network has no batch norm"):
        REWRITE(net, folded, None)


def test_the_input_is_left_as_it_was() -> None:
    variables = Variables(*weights())
    before = jax.tree.map(np.array, variables)
    REWRITE(NET, variables, None)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, variables))


def test_folding_keeps_zeros_and_commutes_with_compaction() -> None:
    params, norm_stats = weights()
    masked = NM().build(setting()).view(params, {}, {}, NOW, KEY)
    _, folded, _ = REWRITE(NET, Variables(masked, norm_stats), None)
    for path in NM().paths(tuple(flatten(params))):
        kernel = flatten(folded.params)[path]
        np.testing.assert_array_equal(kernel * nm_mask(flatten(params)[path], 2, 4), kernel)
    keep = {"b0": np.array([0, 3]), "b1": np.arange(4, 12)}
    _, first, _ = REWRITE(
        NET.resized({"b0": 2, "b1": 8}), Variables(*compact(NET.groups(), keep, params, norm_stats)), None
    )
    _, whole, _ = REWRITE(NET, Variables(params, norm_stats), None)
    then, none = compact(NET.folded().groups(), keep, whole.params, whole.norm_stats)
    assert none == {}
    for path, leaf in flatten(first.params).items():
        np.testing.assert_allclose(flatten(then)[path], leaf, rtol=1e-6, atol=1e-7)
