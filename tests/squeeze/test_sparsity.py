"""Masks against brute force, gradients against the formula of SR-STE, the price of what is matched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from research import nets
from research.graph.rewrite import fuse
from research.graph.trace import trace
from research.npu import U85_128, bad_groups, cost, layer_table
from research.pytrees import flatten
from research.squeeze import NM, nm_mask
from tests.squeeze.samples import KEY, NET, NOW, context, setting, weights

MASK = jax.jit(nm_mask, static_argnums=(1, 2))
# few distinct values: ties, zeros and both signs are common
KERNELS = arrays.arrays(
    np.float32,
    st.tuples(st.sampled_from([(), (1, 1), (3, 2)]), st.integers(1, 9), st.sampled_from([1, 5])).map(
        lambda parts: (*parts[0], *parts[1:])
    ),
    elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]),
)
RATIOS = st.sampled_from([(2, 4), (1, 4), (1, 2), (3, 4), (4, 4), (1, 1), (2, 3), (4, 8)])
PARAMS, _ = weights()


def by_force(kernel: np.ndarray, n: int, m: int) -> np.ndarray:
    """The `n` largest magnitudes of every `m` input channels, the earlier first where they tie."""
    mask = np.zeros_like(kernel)
    for start in range(0, kernel.shape[-2], m):
        for at in np.ndindex(*kernel.shape[:-2], kernel.shape[-1]):
            column = np.abs(kernel[(*at[:-1], slice(start, start + m), at[-1])])
            for i in sorted(range(len(column)), key=lambda i: (-column[i], i))[:n]:
                mask[(*at[:-1], start + i, at[-1])] = 1.0
    return mask


@settings(max_examples=16)
@given(KERNELS, RATIOS)
def test_masks_are_exact(kernel: np.ndarray, ratio: tuple[int, int]) -> None:
    n, m = ratio
    mask = np.asarray(MASK(jnp.asarray(kernel), n, m))
    np.testing.assert_array_equal(mask, by_force(kernel, n, m))
    for start in range(0, kernel.shape[-2], m):
        group = mask[..., start : start + m, :]
        np.testing.assert_array_equal(group.sum(axis=-2), min(n, group.shape[-2]))


@settings(max_examples=10)
@given(KERNELS)
def test_a_mask_depends_on_magnitudes_only_and_masking_is_idempotent(kernel: np.ndarray) -> None:
    mask = np.asarray(MASK(jnp.asarray(kernel), 2, 4))
    np.testing.assert_array_equal(MASK(jnp.asarray(-8.0 * kernel), 2, 4), mask)
    np.testing.assert_array_equal(
        kernel * mask * np.asarray(MASK(jnp.asarray(kernel * mask), 2, 4)), kernel * mask
    )
    assert bad_groups(kernel * mask)[0] == 0


@pytest.mark.parametrize(("n", "m"), [(0, 4), (5, 4), (-1, 4), (1, 0), (0, 0)])
def test_a_ratio_that_is_none_raises(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=f"{n}:{m} is no sparsity"):
        nm_mask(jnp.ones((4, 4)), n, m)


def test_the_view_masks_what_is_matched_and_passes_every_gradient() -> None:
    link = NM(where=("b?/project/kernel", "head/kernel"))
    transform = link.build(setting())
    matched = {p for p in flatten(PARAMS) if p.endswith("project/kernel") or p == "head/kernel"}
    pull = jax.tree.map(lambda leaf: jnp.asarray(np.random.default_rng(1).normal(size=leaf.shape)), PARAMS)

    def scalar(params: dict) -> tuple[jax.Array, dict]:
        seen = transform.view(params, {}, {}, NOW, KEY)
        return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), seen, pull))), seen

    grads, seen = jax.jit(jax.grad(scalar, has_aux=True))(PARAMS)
    for path, leaf in flatten(PARAMS).items():
        expected = leaf * by_force(np.asarray(leaf), 2, 4) if path in matched else leaf
        np.testing.assert_array_equal(flatten(seen)[path], expected)
        np.testing.assert_array_equal(flatten(grads)[path], flatten(pull)[path])
    assert len(matched) == 3


def test_the_term_pulls_pruned_weights_to_zero() -> None:
    decay = 0.25
    transform = NM(decay=decay, where=("*/expand/kernel", "neck/kernel")).build(setting())

    def loss(params: dict) -> jax.Array:
        (value,) = transform.terms(context(raw=params)).values()
        return value

    value, grads = jax.jit(jax.value_and_grad(loss))(PARAMS)
    total = 0.0
    for path, leaf in flatten(PARAMS).items():
        pruned = np.zeros(leaf.shape)
        if path.endswith("expand/kernel") or path == "neck/kernel":
            pruned = 1.0 - by_force(np.asarray(leaf), 2, 4)
        np.testing.assert_allclose(flatten(grads)[path], decay * pruned * np.asarray(leaf), rtol=1e-6)
        total += 0.5 * decay * float(np.sum(pruned * np.square(np.asarray(leaf, np.float64))))
    assert total > 0.0
    assert float(value) == pytest.approx(total, rel=1e-5)


def test_the_gradient_of_the_term_by_finite_differences() -> None:
    with jax.enable_x64(True):
        kernel = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 7, 2)))
        transform = NM(n=1, m=3, decay=0.5, where=("b0/expand/*nel",)).build(setting())

        def loss(kernel: jax.Array) -> jax.Array:
            return transform.terms(context(raw={"b0": {"expand": {"kernel": kernel}}}))["decay"]

        grad = np.asarray(jax.grad(loss)(kernel))
        assert grad.dtype == np.float64
        step = 1e-5
        for at in np.ndindex(kernel.shape):
            up, down = (float(loss(kernel.at[at].add(sign * step))) for sign in (1, -1))
            assert grad[at] == pytest.approx((up - down) / (2 * step), abs=1e-8)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (
            ("b0/expnd/kernel",),
            "sparsity rule 'b0/expnd/kernel' matches nothing; did you mean 'b0/expand/kernel'",
        ),
        (("*/kernel", "tail/*"), "sparsity rule"),
    ],
)
def test_a_rule_that_matches_nothing_raises(where: tuple[str, ...], says: str) -> None:
    link = NM(where=where)
    with pytest.raises(ValueError, match=says):
        link.build(setting())
    graph, _ = fuse(trace(*nets.traced(NET)))
    with pytest.raises(ValueError, match=says):
        link.price(layer_table(graph), tuple(node.kernel for node in graph.nodes))


def test_only_matched_kernels_are_priced_as_sparse() -> None:
    graph, _ = fuse(trace(*nets.traced(NET)))
    kernels = tuple(node.kernel for node in graph.nodes)
    table = layer_table(graph)
    priced = NM().price(table, kernels)
    matched = [
        k is not None and k.endswith(("expand/kernel", "project/kernel", "neck/kernel", "head/kernel"))
        for k in kernels
    ]
    by_shape = np.asarray(table.sparse)  # the stem reads one channel
    np.testing.assert_array_equal(priced.sparse, np.maximum(by_shape, matched))
    assert sum(matched) == 6
    assert by_shape.sum() == 1
    assert None in kernels
    for name in set(table._fields) - {"sparse"}:
        assert getattr(priced, name) is getattr(table, name)
    assert float(cost(priced, U85_128).runs_sparse.sum()) > float(cost(table, U85_128).runs_sparse.sum())
    np.testing.assert_array_equal(NM().price(priced, kernels).sparse, priced.sparse)
    assert NM(4, 8).price(table, kernels) is table


def test_the_default_rules_fit_the_network() -> None:
    paths = tuple(flatten(PARAMS))
    assert NM().paths(paths) == tuple(
        p for p in paths if p.endswith("kernel") and "stem" not in p and "depthwise" not in p
    )
