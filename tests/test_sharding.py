"""Two devices train what one trains; a checkpoint of two opens on one; a batch that does not split is refused."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from research.pytrees import flatten, select
from research.spec import Stage
from research.train import loop
from research.train.arms import Arm, full
from research.train.fit import Outcome, fit
from research.train.loop import batches
from research.train.mesh import data_mesh, place, replicated, split_batch
from research.train.step import compiled_step, initial_state, program_of
from tests.smoke import Finished, arrays, largest_difference, same_bits, smoke, v1_steps

EXP = smoke(v1_steps(6), "optim.lr=3e-3")
V1 = Arm("v1")
BREAK = 3
# What the next batch norm takes out again has no gradient but rounding noise, and Adam makes full steps of it.
NO_GRADIENT = ("*/project/norm/bias", "*/expand/norm/scale")


def trained(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that the loss depends on."""
    flat = flatten(params)
    free = set(select(NO_GRADIENT, flat))
    return {path: leaf for path, leaf in flat.items() if path not in free}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The baseline trained on one device and on two."""
    one, two = (tmp_path_factory.mktemp(f"devices{devices}") for devices in (1, 2))
    fit(EXP, V1, one, devices=1)
    fit(EXP, V1, two, devices=2)
    return one, two


@pytest.fixture(scope="module")
def fits(folders: tuple[Path, Path]) -> tuple[Outcome, Outcome]:
    one, two = (fit(EXP, V1, folder, devices=devices) for devices, folder in enumerate(folders, 1))
    return one, two


def losses(folder: Path) -> list[float]:
    (metrics,) = folder.glob("stages/*/metrics.jsonl")
    return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]


def break_at(patch: pytest.MonkeyPatch, stop: int) -> None:
    """The stream of batches is interrupted at a step."""

    def broken(data: Any, batch: int) -> Any:
        def at(seed: int, step: int) -> dict[str, jax.Array]:
            if step == stop:
                raise KeyboardInterrupt
            return batches(data, batch)(seed, step)

        return at

    patch.setattr(loop, "batches", broken)


def test_two_devices_are_one_device(fits: tuple[Outcome, Outcome]) -> None:
    one, two = fits
    start = fit(EXP, V1, Path("unused"), upto=0)
    assert largest_difference(trained(one.raw), trained(two.raw)) < 1e-5
    assert largest_difference(trained(one.raw), trained(start.raw)) > 1e-2
    for leaf in jax.tree.leaves(two.raw):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.devices()) == 2


def test_two_devices_report_the_losses_of_one(folders: tuple[Path, Path]) -> None:
    one, two = (losses(folder) for folder in folders)
    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-5)


def test_every_link_has_the_same_terms_and_gradients_on_two_devices(finished: Finished) -> None:
    exp = finished.exp
    links, teacher = exp.squeeze, fit(exp, Arm("teacher"), finished.workdir, devices=1)
    before = fit(exp, full(exp), finished.workdir, upto=1, devices=1)
    stage = Stage("squeeze", 4, links.names)
    program, hyper = program_of(before.net, links, exp.optim, exp.new_chip, teacher.net, stage, exp.seed)
    ends = []
    for mesh in (data_mesh(1), data_mesh(2)):
        state = place(initial_state(program, hyper, before.raw, before.norm_stats), replicated(mesh))
        frozen = place({"params": teacher.params, "norm_stats": teacher.norm_stats}, replicated(mesh))
        batch = place(batches(exp.data, 8)(0, 0), split_batch(mesh))
        state, terms = compiled_step(program, mesh)(hyper, frozen, state, batch)
        ends.append((state.opt, terms))  # Adam's moments after its first step: the gradients themselves
    assert largest_difference(*ends) < 1e-5
    assert max(np.max(np.abs(leaf)) for leaf in arrays(ends[0][0])) > 1e-2


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_checkpoint_opens_on_another_number_of_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: tuple[Outcome, Outcome], first: int, then: int
) -> None:
    with monkeypatch.context() as patch:
        break_at(patch, BREAK)
        with pytest.raises(KeyboardInterrupt):
            fit(EXP, V1, tmp_path, devices=first)
    outcome = fit(EXP, V1, tmp_path, devices=then)
    assert largest_difference(trained(outcome.raw), trained(fits[0].raw)) < 1e-5
    assert len(jax.tree.leaves(outcome.raw)[0].devices()) == then
    again = fit(EXP, V1, tmp_path, devices=first)  # the finished outcome opens anywhere, to the bit
    assert same_bits(again.raw, outcome.raw)


def test_batches_are_the_same_wherever_they_lie() -> None:
    batch = batches(EXP.data, 8)(0, 3)
    for devices in (1, 2):
        lying = place(batch, split_batch(data_mesh(devices)))
        np.testing.assert_array_equal(lying["image"], batch["image"])
        assert len(lying["image"].addressable_shards) == devices


def test_a_batch_that_does_not_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"optim\.batch=7 does not split over 2 devices: choose a multiple"):
        fit(smoke("optim.batch=7"), V1, tmp_path, devices=2)
