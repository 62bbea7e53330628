"""The notebook's door: the same code as the command line, interruptible, and quick after an edit."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import research
from research.door import find_arm, fingerprint, fit, load, price, table
from research.npu import U55_128, U85_128
from research.report.tables import markdown_table
from research.train.arms import full
from research.train.step import compiled_step
from tests.smoke import CONFIG, Finished, same_bits, smoke


def test_the_package_offers_the_four_functions() -> None:
    assert (research.load, research.fit, research.price, research.table) == (load, fit, price, table)
    with pytest.raises(AttributeError, match="no attribute 'train_fast'"):
        _ = research.train_fast


def test_xla_computes_pools_of_padded_sums_right() -> None:
    """Fails without the XLA flag that importing the package sets (jaxlib 0.10.2, CPU)."""
    rng = np.random.default_rng(0)
    image, deep, wide = (
        jnp.asarray(rng.normal(size=size), jnp.float32)
        for size in ((1, 64, 64, 24), (3, 3, 1, 24), (1, 1, 24, 28))
    )

    def pooled(x: jax.Array) -> jax.Array:
        x, axes = jnp.maximum(x, 0), ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, deep, (1, 1), "SAME", dimension_numbers=axes, feature_group_count=24)
        y = lax.conv_general_dilated(y, wide, (1, 1), "VALID", dimension_numbers=axes)
        y = jnp.maximum(jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 4))) + y, 0)
        return lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    np.testing.assert_allclose(jax.jit(pooled)(image), pooled(image), rtol=1e-4, atol=1e-3)


def test_load_takes_overrides_after_shrinking() -> None:
    assert load(CONFIG, "optim.batch=6", smoke=True).optim.batch == 6
    assert load(CONFIG, "optim.lr=1e-3").optim.lr == 1e-3


def test_fit_gives_what_the_command_line_gave(finished: Finished) -> None:
    ours = fit(finished.exp, "v1", finished.workdir, quiet=True)
    assert [entry["name"] for entry in ours.ledger] == ["dense"]
    whole = fit(finished.exp, "", finished.workdir, quiet=True)
    assert [entry["name"] for entry in whole.ledger] == ["dense", "squeeze", "gates", "finish"]


def test_an_edit_gets_its_own_folder_and_compiles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = fit(smoke(), "v1", quiet=True)
    compiled = compiled_step.cache_info().misses
    second = fit(smoke("optim.lr=1e-3", "tracks.v1.stages.dense.steps=5"), "v1", quiet=True)
    assert compiled_step.cache_info().misses == compiled
    assert not same_bits(first.params, second.params)
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert fingerprint(smoke()) != fingerprint(smoke("seed=1"))


def test_price_of_a_network_and_of_a_fit(finished: Finished) -> None:
    net = finished.exp.tracks["v2"].net
    dense, sparse = price(net), price(net, U85_128, finished.exp.squeeze)
    assert sparse["ms_simulated"] < dense["ms_simulated"] < price(net, U55_128)["ms_simulated"]
    fitted = fit(finished.exp, "", finished.workdir, quiet=True)
    assert price(fitted)["params"] < dense["params"]


def test_table_of_a_run(finished: Finished, tmp_path: Path) -> None:
    text = markdown_table(finished.result)
    assert (
        table(finished.workdir) == table(finished.workdir / "result.json") == table(finished.result) == text
    )
    with pytest.raises(FileNotFoundError, match="finish a run first"):
        table(tmp_path)


def test_arms_go_by_name() -> None:
    exp = smoke()
    assert find_arm(exp, "") == full(exp)
    assert find_arm(exp, "v2+sparse").links == ("sparse",)
    with pytest.raises(ValueError, match="did you mean 'v2\\+sparse'"):
        find_arm(exp, "v2+sprase")
