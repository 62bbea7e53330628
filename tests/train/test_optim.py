"""Learning rate and optimiser against numpy; who is moved by what; multipliers climb and stay >= 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.spec import Optim
from research.train.optim import learning_rate, optimiser

OPTIM = Optim(batch=8, lr=1e-2, weight_decay=0.1, clip=1.0, gate_lr=0.05, dual_lr=0.5)
RNG = np.random.default_rng(0)
PARAMS = {"conv": {"kernel": RNG.normal(size=(3, 4)), "bias": RNG.normal(size=4)}}
LEARNED = {"gates": {"logits": {"b0": RNG.normal(size=3)}, "multiplier": np.asarray(0.2)}}


def tree(params: dict, learned: dict) -> dict:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), {"params": params, "learned": learned})


TRAINABLE = tree(PARAMS, LEARNED)
ZERO = jax.tree.map(jnp.zeros_like, TRAINABLE)


def moves(optim: Optim, grads: list, factor: float = 1.0) -> list:
    """The moves of successive gradients on parameters that stay where they are."""
    transformation = optimiser(optim, factor)
    state, out = transformation.init(TRAINABLE), []
    for grad in grads:
        move, state = transformation.update(grad, state, TRAINABLE)
        out.append(jax.tree.map(np.asarray, move))
    return out


@given(
    st.integers(1, 400),
    st.floats(0, 1),
    st.floats(0, 0.9),
    st.floats(0, 2),
    st.floats(0, 1),
    st.floats(0, 1.2),
)
def test_learning_rate_against_numpy(
    steps: int, at: float, warmup: float, start: float, end: float, beyond: float
) -> None:
    step = int(at * beyond * steps)
    found = float(learning_rate(jnp.asarray(step), steps, warmup, start, end))
    cosine = 0.5 * (1 + np.cos(np.pi * min(step / steps, 1)))
    ramp = min(1, (step + 1) / max(warmup * steps, 1))
    assert found == pytest.approx(ramp * (end + (start - end) * cosine), rel=1e-4, abs=1e-5)


def test_learning_rate_begins_with_a_ramp_and_ends_at_its_end() -> None:
    factors = [float(learning_rate(jnp.asarray(step), 100, 0.1)) for step in range(101)]
    assert np.all(np.diff(factors[:9]) > 0)
    assert np.all(np.diff(factors[12:]) < 0)
    assert factors[100] == pytest.approx(0, abs=1e-6)
    assert float(learning_rate(jnp.asarray(0), 1, 0.5)) == 1.0  # a stage of one step moves


def test_weights_move_by_adamw_with_clipping() -> None:
    grads = [
        tree({"conv": {"kernel": RNG.normal(size=(3, 4)), "bias": RNG.normal(size=4)}}, LEARNED)
        for _ in range(3)
    ]
    found = moves(OPTIM, grads, 0.5)
    first, second = dict.fromkeys(PARAMS["conv"], 0.0), dict.fromkeys(PARAMS["conv"], 0.0)
    for t, (grad, move) in enumerate(zip(grads, found, strict=True), 1):
        ours = {k: np.asarray(v, np.float64) for k, v in grad["params"]["conv"].items()}
        norm = np.sqrt(sum((g**2).sum() for g in ours.values()))
        assert norm > OPTIM.clip
        for k, g in ours.items():
            clipped = g * OPTIM.clip / norm
            first[k] = 0.9 * first[k] + 0.1 * clipped
            second[k] = 0.999 * second[k] + 0.001 * clipped**2
            adam = first[k] / (1 - 0.9**t) / (np.sqrt(second[k] / (1 - 0.999**t)) + 1e-8)
            decay = OPTIM.weight_decay * PARAMS["conv"][k] if k == "kernel" else 0.0
            expected = -OPTIM.lr * 0.5 * (adam + decay)
            np.testing.assert_allclose(move["params"]["conv"][k], expected, rtol=1e-4, atol=1e-7)


def test_decay_acts_on_kernels_only() -> None:
    (move,) = moves(OPTIM, [ZERO])
    np.testing.assert_allclose(
        move["params"]["conv"]["kernel"], -OPTIM.lr * OPTIM.weight_decay * PARAMS["conv"]["kernel"], rtol=1e-5
    )
    assert not np.any(move["params"]["conv"]["bias"])
    assert not np.any(jax.tree.leaves(move["learned"])[0])


def test_gates_know_nothing_of_the_weights_rate_clip_or_decay() -> None:
    grads = [TRAINABLE, TRAINABLE]
    one = moves(OPTIM, grads)
    two = moves(
        Optim(batch=8, lr=7.0, weight_decay=3.0, clip=1e-3, gate_lr=0.05, dual_lr=0.5), grads, factor=0.1
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(
            a["learned"]["gates"]["logits"]["b0"], b["learned"]["gates"]["logits"]["b0"]
        )
    signs = np.sign(np.asarray(TRAINABLE["learned"]["gates"]["logits"]["b0"]))
    np.testing.assert_allclose(one[0]["learned"]["gates"]["logits"]["b0"], -0.05 * signs, rtol=1e-4)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12))
def test_multipliers_climb_the_violation_and_stay_nonnegative(violations: list[float]) -> None:
    transformation = optimiser(OPTIM, 1.0)
    trainable, oracle = TRAINABLE, 0.2
    state = transformation.init(trainable)
    for violation in violations:
        grads = jax.tree.map(jnp.zeros_like, trainable)
        grads["learned"]["gates"]["multiplier"] = jnp.asarray(violation, jnp.float32)
        move, state = transformation.update(grads, state, trainable)
        trainable = jax.tree.map(jnp.add, trainable, move)
        oracle = max(0.0, oracle + OPTIM.dual_lr * violation)
        found = float(trainable["learned"]["gates"]["multiplier"])
        assert found >= 0
        assert found == pytest.approx(oracle, abs=1e-5)


def test_state_has_one_structure_for_every_float() -> None:
    structures = {
        jax.tree.structure(optimiser(optim, factor).init(TRAINABLE))
        for optim, factor in ((OPTIM, 1.0), (Optim(batch=8, weight_decay=0.0, clip=9.0), 0.25))
    }
    assert len(structures) == 1
