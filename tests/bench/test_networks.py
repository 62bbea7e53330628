"""Random networks: the same for a seed, all kinds of blocks come up, the graph computes what the function does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.bench.networks import ACTIVATIONS, BLOCKS, random_network
from research.graph import interpret_float, trace


def test_a_seed_is_a_network() -> None:
    one, again, other = random_network(3), random_network(3), random_network(4)
    assert one.blocks == again.blocks
    jax.tree.map(np.testing.assert_array_equal, one.params, again.params)
    assert one.blocks != other.blocks


def test_every_kind_of_block_and_activation_comes_up() -> None:
    found = [random_network(seed) for seed in range(50)]
    assert {block for net in found for block in net.blocks} == set(BLOCKS)
    assert {net.activation for net in found} == set(ACTIVATIONS)
    assert len({net.shape for net in found}) == 8


@pytest.mark.parametrize("seed", [2, 4, 5])
def test_the_graph_computes_what_the_network_does(seed: int) -> None:
    net = random_network(seed)
    graph = trace(net.fn, net.params, jax.ShapeDtypeStruct(net.shape, jnp.float32))
    images = np.random.default_rng(0).uniform(size=(2, *net.shape[1:])).astype(np.float32)
    wanted = np.asarray(net.fn(net.params, jnp.asarray(images)))
    assert wanted.shape == (2, 42)
    got = interpret_float(graph, net.params, images)
    np.testing.assert_allclose(got, wanted, atol=2e-5 * np.abs(wanted).max())
