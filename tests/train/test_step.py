"""The one step: its loss, one trace for every float, another for every integer, none for a wrong shape."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import nets
from research.spec import Experiment, Named, Stage
from research.squeeze import nm_mask
from research.train import step as room
from research.train.mesh import data_mesh, place, replicated, split_batch
from research.train.state import Hyper, Program, TrainState
from research.train.step import compiled_step, effective, initial_state, program_of, transform_of
from tests.smoke import Finished, arrays, same_bits, smoke

STAGE = Stage("squeeze", 4, ("gates", "sparse", "distill"), ("gates",), lr_start=0.5)
LINKS = ("gates", "sparse", "distill")
ONE = data_mesh(1)


def split(exp: Experiment, links: tuple[str, ...], stage: Stage = STAGE) -> tuple[Program, Hyper]:
    teacher = exp.tracks["teacher"].net if "distill" in links else None
    return program_of(
        exp.tracks["v2"].net, exp.squeeze.only(links), exp.optim, exp.new_chip, teacher, stage, exp.seed
    )


def start(program: Program, hyper: Hyper) -> TrainState:
    return place(initial_state(program, hyper, *nets.init(program.net, jax.random.key(3))), replicated(ONE))


def frozen(program: Program) -> dict:
    if program.teacher is None:
        return {}
    params, norm_stats = nets.init(program.teacher, jax.random.key(4))
    return place({"params": params, "norm_stats": norm_stats}, replicated(ONE))


def batch_of(count: int) -> dict[str, jax.Array]:
    """Grey noise and keypoints of a batch, split as the loop splits it."""
    rng = np.random.default_rng(count)
    shapes = {"image": (count, 32, 32), "keypoints": (count, 21, 2)}
    batch = {name: jnp.asarray(rng.uniform(size=shape), jnp.float32) for name, shape in shapes.items()}
    return place(batch, split_batch(ONE))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Program]]:
    """The programs traced while a test runs."""
    seen: list[Program] = []
    real = room.train_step

    def counted(program: Program, *rest: object) -> object:
        seen.append(program)
        return real(program, *rest)

    monkeypatch.setattr(room, "train_step", counted)
    return seen


def test_floats_and_steps_never_retrace_and_change_what_is_computed(
    finished: Finished, traced: list[Program]
) -> None:
    ends = []
    for overrides, steps in (
        ((), 4),
        (("optim.lr=0.5",), 4),
        (("squeeze.distill.output=20.0",), 4),
        (("squeeze.gates.budget_ms=0.01",), 4),
        (("squeeze.sparse.decay=5.0",), 4),
        (("seed=5",), 4),
        ((), 400),
    ):
        program, hyper = split(
            smoke(*overrides), LINKS, Stage("squeeze", steps, LINKS, ("gates",), lr_start=0.5)
        )
        state, taught = start(program, hyper), frozen(program)
        for _ in range(3):
            state, terms = compiled_step(program, ONE)(hyper, taught, state, batch_of(8))
        assert sorted(terms) == [
            "distill/attention", "distill/output", "gates/budget", "loss", "sparse/decay", "task",
        ]  # fmt: skip
        assert float(terms["loss"]) == pytest.approx(
            sum(float(v) for k, v in terms.items() if k != "loss"), rel=1e-5
        )
        ends.append(
            np.concatenate([leaf.ravel() for leaf in arrays((state.params, state.learned, state.opt))])
        )
    assert len(traced) <= 1  # the first fit of this process may have traced it already
    for i, end in enumerate(ends[1:], 1):
        assert (i == 5) == np.array_equal(end, ends[0])  # the seed moves batches, which are the same here


def test_an_edited_integer_is_another_program(traced: list[Program]) -> None:
    for overrides, batch in ((("squeeze.sparse.n=1",), 8), (("optim.batch=4",), 4)):
        program, hyper = split(smoke(*overrides), ("sparse",))
        for expected in ([program], []):  # traced once, and not again
            compiled_step(program, ONE).trace(hyper, {}, start(program, hyper), batch_of(batch))
            assert traced == expected
            traced.clear()


def test_each_mesh_has_a_step_of_its_own(traced: list[Program]) -> None:
    program, hyper = split(smoke("squeeze.sparse.m=8"), ("sparse",))
    for mesh in (ONE, data_mesh(2)):
        state, batch = place(start(program, hyper), replicated(mesh)), place(batch_of(8), split_batch(mesh))
        compiled_step(program, mesh).trace(hyper, {}, state, batch)
    assert traced == [program, program]


def test_another_shape_of_batch_raises() -> None:
    program, hyper = split(smoke("squeeze.sparse.m=16"), ("sparse",))  # nobody else's: traced here first
    compiled_step(program, ONE).trace(hyper, {}, start(program, hyper), batch_of(8))
    with pytest.raises(AssertionError, match="is traced > 1 times"):
        compiled_step(program, ONE).trace(hyper, {}, start(program, hyper), batch_of(6))


def test_an_interrupted_trace_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    program, hyper = split(smoke("squeeze.sparse.n=3"), ("sparse",))
    step, state = compiled_step(program, ONE), start(program, hyper)
    with monkeypatch.context() as patch:
        patch.setattr(room, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            step.trace(hyper, {}, state, batch_of(8))
    step.trace(hyper, {}, state, batch_of(8))


def test_what_is_shipped_is_the_view() -> None:
    program, hyper = split(smoke(), ("gates", "sparse"))
    state = start(program, hyper)
    gates = state.learned["gates"]
    logits = {name: jnp.asarray([1.0, -1.0]) for name in gates["logits"]}
    state = state._replace(learned=state.learned | {"gates": gates | {"logits": logits}})
    params, raw = effective(program, hyper, state), state.params
    kernel = raw["b0"]["expand"]["kernel"]
    np.testing.assert_array_equal(params["b0"]["expand"]["kernel"], kernel * nm_mask(kernel, 2, 4))
    scale, whole = (np.asarray(tree["b0"]["depthwise"]["norm"]["scale"]) for tree in (params, raw))
    np.testing.assert_array_equal(scale, np.where(np.arange(16) < 8, whole, 0.0))
    assert same_bits(params["stem"], raw["stem"])


def test_an_illegal_chain_is_refused() -> None:
    exp = smoke()
    links = Named(tuple((name, exp.squeeze[name]) for name in ("sparse", "gates")))
    program, _ = program_of(exp.tracks["v2"].net, links, exp.optim, exp.new_chip, None, STAGE, 0)
    with pytest.raises(ValueError, match="illegal chain: 'gates' must come before 'sparse'"):
        transform_of(program, links)


def test_a_stage_is_split_into_program_and_arguments() -> None:
    exp = smoke("optim.lr=0.25", "squeeze.gates.budget_ms=0.5")
    program, hyper = split(exp, ("gates",))
    assert program.optim.lr == program.links["gates"].budget_ms == 0.0
    assert 0.25 in hyper.optim
    assert 0.5 in hyper.links
    assert (hyper.steps, hyper.lr_start, hyper.lr_end, hyper.seed) == (4, 0.5, 0.0, 0)


def test_initial_state_depends_on_the_seed_only_through_the_links() -> None:
    program, hyper = split(smoke(), LINKS)
    assert same_bits(start(program, hyper), start(program, hyper))
    assert int(start(program, hyper).step) == 0


def test_in_bfloat16_only_the_network_is_narrow() -> None:
    program, hyper = split(smoke("optim.compute=bfloat16"), LINKS)
    step, state = compiled_step(program, ONE), start(program, hyper)
    before = [leaf.dtype for leaf in jax.tree.leaves(state)]
    traced = step.trace(hyper, frozen(program), state, batch_of(8))
    assert "bf16[8,32,32,1]" in str(traced.jaxpr)
    after, terms = traced.out_info
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == before
    assert {term.dtype for term in terms.values()} == {np.dtype("float32")}
    assert program != split(smoke(), LINKS)[0]


@pytest.mark.slow
def test_bfloat16_learns_as_float32_does() -> None:
    losses = {}
    for compute in ("float32", "bfloat16"):
        exp = smoke(f"optim.compute={compute}", "optim.lr=3e-3")
        program, hyper = split(exp, (), Stage("dense", 60))
        state, seen = start(program, hyper), []
        for _ in range(60):
            state, terms = compiled_step(program, ONE)(hyper, {}, state, batch_of(8))
            seen.append(float(terms["loss"]))
        losses[compute] = seen
    for compute, seen in losses.items():
        assert np.mean(seen[-5:]) < 0.1 * np.mean(seen[:5]), compute
