"""K steps in one scan are K steps in a loop, whatever renders their images and on however many devices."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import nets
from research.data.synthetic import batch_at
from research.spec import Stage
from research.train.dispatch import Advance, dispatch, drawn_in_place, is_accelerator, looped, scanned
from research.train.mesh import data_mesh, place, replicated
from research.train.state import Hyper, Program, TrainState
from research.train.step import initial_state, program_of, train_step
from tests.smoke import largest_difference, smoke

EXP = smoke()
ONE = data_mesh(1)
Trial = tuple[Program, Hyper, Any, TrainState]
RNG = np.random.default_rng(0)
TABLE = {"image": RNG.uniform(size=(16, 4, 32, 32)), "keypoints": RNG.uniform(size=(16, 4, 21, 2))}


def doubles(tree: Any) -> Any:
    """A tree as numpy arrays in float64: in float32 rounding flips ReLUs, and Adam makes full steps of noise."""

    def wide(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        return leaf.astype(np.float64) if leaf.dtype.kind == "f" else leaf

    return jax.tree.map(wide, tree)


def trial(*overrides: str, links: tuple[str, ...] = ()) -> Trial:
    """A trial of the smoke experiment's target: program, hyper, frozen teacher and initial state, of its own seed."""
    exp = smoke(*overrides)
    used, net, teacher = exp.squeeze.only(links), exp.tracks["v2"].net, exp.tracks["teacher"].net
    taught = teacher if "distill" in links else None
    program, hyper = program_of(net, used, exp.optim, exp.new_chip, taught, Stage("s", 8, links), exp.seed)
    state = initial_state(program, hyper, *nets.init(net, jax.random.key(exp.seed)))
    weights = nets.init(teacher, jax.random.key(exp.seed + 1))
    frozen = dict(zip(("params", "norm_stats"), weights, strict=True)) if taught else {}
    return program, doubles(hyper), doubles(frozen), doubles(state)


def single(tree: Any) -> Any:
    """A tree with its floats in float32 again; the cost model of the gates knows no other."""
    return jax.tree.map(lambda x: np.float32(x) if getattr(x, "dtype", None) == np.float64 else x, tree)


def draw(seed: Any, step: Any) -> dict[str, jax.Array]:
    """Four images of noise from a table of sixteen batches: a stream that costs nothing."""
    at = (jnp.asarray(seed) * 5 + step) % 16
    return {name: jnp.asarray(part)[at] for name, part in TABLE.items()}


def step_by_step(given: Trial, steps: int, first: int) -> tuple[TrainState, dict[str, Any]]:
    """Single train steps on the table's stream, in float64: the final state and the last terms."""
    program, hyper, frozen, state = given
    with jax.enable_x64(True):
        step = jax.jit(train_step, static_argnums=0)
        for at in range(first, first + steps):
            state, terms = step(program, hyper, frozen, state, draw(hyper.seed, at))
        return jax.device_get((state, terms))


def rendered(given: Trial, devices: int, steps: int, scan: bool) -> tuple[TrainState, dict[str, Any]]:
    """The `dispatch` of a trial from step 3 of its rendered stream, in float64."""
    program, hyper, frozen, state = given
    mesh = data_mesh(devices)
    chex.clear_trace_counter()
    with jax.enable_x64(True):
        advance = dispatch.__wrapped__(program, mesh, EXP.data, EXP.optim.batch, steps, scan)
        placed = (place(tree, replicated(mesh)) for tree in (frozen, state))
        return jax.device_get(advance(hyper, *placed, 3))


def test_a_scan_is_single_steps() -> None:
    given = trial()
    with jax.enable_x64(True):
        state, terms = jax.device_get(jax.jit(scanned(given[0], draw, 3))(*given[1:], 2))
    expected, last = step_by_step(given, 3, 2)
    assert terms["loss"].shape == (3,)
    assert largest_difference(state, expected) < 1e-9
    assert terms["loss"][2] == pytest.approx(last["loss"], rel=1e-9)
    assert largest_difference(state.params, given[3].params) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("links", [(), ("sparse", "distill")])
def test_a_rendering_scan_on_two_devices_is_the_loop_on_one(links: tuple[str, ...]) -> None:
    loop, scan = (rendered(trial(links=links), *how) for how in ((1, 3, False), (2, 3, True)))
    assert sorted(scan[1]) == sorted(loop[1])
    assert scan[1]["loss"].shape == loop[1]["loss"].shape == (3,)
    assert loop[0].step == scan[0].step == 3
    assert largest_difference(loop, scan) < 1e-5


@pytest.mark.slow
def test_the_first_step_of_every_link_is_the_same() -> None:
    given, mesh = trial(links=EXP.squeeze.names), data_mesh(2)
    program, hyper, frozen, state = given[0], *single(given[1:])
    ends = []
    for scan in (False, True):
        placed = (place(tree, replicated(mesh)) for tree in (frozen, state))
        end, terms = dispatch(program, mesh, EXP.data, EXP.optim.batch, 1, scan)(hyper, *placed, 3)
        ends.append((end.opt, terms))  # Adam's moments after one step: the gradients themselves
    assert largest_difference(*ends) < 1e-5


@pytest.mark.slow
def test_each_device_renders_its_share_of_the_stream() -> None:
    drawn = jax.jit(drawn_in_place(EXP.data, data_mesh(2), 8))(5, jnp.asarray(7))
    for name, part in batch_at(EXP.data, 5, 7, 8).items():
        np.testing.assert_allclose(drawn[name], part, atol=1e-5)
        assert [shard.data.shape[0] for shard in drawn[name].addressable_shards] == [4, 4]
        assert np.ptp(part) > 0.5


def test_a_loop_strings_its_terms_together() -> None:
    def one(hyper: float, frozen: None, state: int, first: int) -> tuple[int, dict]:
        return state + 1, {"a": jnp.full((2, 1), hyper * (first + state))}

    state, terms = looped(one, 3)(10.0, None, 0, 5)
    assert state == 3
    assert terms["a"].tolist() == [[50.0, 60.0, 70.0]] * 2


def test_a_cpu_loops_unless_told_otherwise() -> None:
    def is_jitted(advance: Advance) -> bool:
        return hasattr(advance, "lower")

    program = trial()[0]
    assert not is_accelerator(ONE)
    assert not is_jitted(dispatch(program, ONE, EXP.data, 8, 2))
    assert is_jitted(dispatch(program, ONE, EXP.data, 8, 2, True))


def test_a_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optim\.batch=7 does not split over 2 devices"):
        dispatch(trial()[0], data_mesh(2), EXP.data, 7, 2, True)
