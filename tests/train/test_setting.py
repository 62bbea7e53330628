"""What links know of a network: prices that equal those of the network really cut, and gradients of them."""

import dataclasses as dc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import nets
from research.npu import U55_128, U85_128, cost
from research.spec import Named, named
from research.squeeze import NM
from research.train.measure import price_network
from research.train.setting import graph_of, latency_of, priced_table, setting_of
from research.train.state import Program
from tests.smoke import smoke

EXP = smoke()
NET = EXP.tracks["v2"].net
NONE = Named()


def test_graph_is_what_is_shipped() -> None:
    nodes = graph_of(NET).nodes
    units = [unit for i in range(3) for unit in (f"b{i}/expand", f"b{i}/depthwise", f"b{i}/project")]
    assert {node.kernel for node in nodes if node.kernel} == {
        f"{u}/kernel" for u in (*units, "stem", "neck", "head")
    }
    assert all(node.bias for node in nodes if node.kernel)  # norms are folded
    assert {node.op for node in nodes} == {"conv", "depthwise", "add", "reshape", "dense"}
    assert graph_of(dc.replace(NET)) is graph_of(NET)


@pytest.mark.parametrize("chip", [U55_128, U85_128], ids=lambda chip: chip.name)
@pytest.mark.parametrize("links", [NONE, named(sparse=NM(2, 4))], ids=["dense", "sparse"])
def test_latency_in_widths_is_the_latency_of_the_resized_network(chip: object, links: Named) -> None:
    rng = np.random.default_rng(0)
    latency_ms = latency_of(NET, links, chip)
    for widths in (
        {},
        {"b1": 24},
        *({g.name: int(rng.integers(3, 33)) for g in NET.groups()} for _ in range(4)),
    ):
        found = float(latency_ms({name: jnp.asarray(float(width)) for name, width in widths.items()}))
        assert found == pytest.approx(
            price_network(NET.resized(widths), chip, links)["ms_simulated"], rel=1e-5
        )


def test_latency_pulls_every_width_down() -> None:
    grads = jax.grad(latency_of(NET, NONE, U85_128))({g.name: jnp.asarray(16.0) for g in NET.groups()})
    assert all(float(grad) > 0 for grad in grads.values())


def test_sparse_rows_are_exactly_those_of_the_rule() -> None:
    table, kernels = priced_table(NET, named(sparse=NM(2, 4, where=("b1/expand/kernel", "head/kernel"))))
    sparse = {kernel for kernel, flag in zip(kernels, np.asarray(table.sparse), strict=True) if flag}
    assert sparse == {"b1/expand/kernel", "head/kernel", "stem/kernel"}  # one input channel is 2:4 by shape
    dense, _ = priced_table(NET, NONE)
    assert float(cost(table, U85_128).ms) < float(cost(dense, U85_128).ms)
    other, _ = priced_table(NET, named(sparse=NM(1, 4)))  # the chip knows no 1:4
    np.testing.assert_array_equal(other.sparse, dense.sparse)


def test_setting_names_what_the_network_has() -> None:
    teacher = dc.replace(NET, stem=16)
    setting = setting_of(Program(NET, NONE, EXP.optim, U85_128, teacher), NONE)
    assert "b0/depthwise/norm/scale" in setting.paths
    assert setting.sites == NET.sites()
    assert setting.groups == NET.groups()
    params, norm_stats = nets.init(teacher, jax.random.key(0))
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32)), jnp.float32)
    assert setting.teacher is not None
    outputs, taps = jax.jit(setting.teacher)({"params": params, "norm_stats": norm_stats}, images)
    assert outputs.shape == (2, 21, 2)
    assert taps["stem"].shape == (2, 16, 16, 16)
    assert setting_of(Program(NET, NONE, EXP.optim, U85_128), NONE).teacher is None
