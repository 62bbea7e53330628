"""Trials that train together end as each would alone, wherever each of them was."""

import json
from pathlib import Path
from typing import Any

import pytest

from research.spec import Experiment, Named
from research.squeeze import NM
from research.train import together
from research.train.arms import Arm, stage_key
from research.train.checkpoint import open_manager
from research.train.fit import fit
from research.train.loop import NonFiniteLoss
from research.train.progress import Reporter
from research.train.together import Trial, check_alike, fit_together, shape_of
from tests.smoke import same_bits, smoke, v1_steps

ARM = Arm("v1")
QUIET = Reporter(quiet=True)
WORDS = (("optim.lr=3e-3",), ("seed=1", "optim.lr=1e-2"), ("seed=2", "optim.clip=1.0"))


def trials(folder: Path, *words: str) -> list[Trial]:
    return [
        Trial(smoke(v1_steps(9), "save_every=4", *own, *words), folder / str(i)) for i, own in enumerate(WORDS)
    ]


def ends(found: list[Trial]) -> list[Any]:
    """Raw and squeezed weights and statistics of each."""
    return [fit(trial.exp, ARM, trial.workdir, devices=1)[1:4] for trial in found]


def rows(trial: Trial) -> list[dict]:
    path = trial.workdir / "stages" / stage_key(trial.exp, ARM, 0) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def singly(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Trial], list[Any]]:
    found = trials(tmp_path_factory.mktemp("singly"))
    return found, ends(found)


def test_together_each_ends_with_the_bits_it_has_alone(
    tmp_path: Path, singly: tuple[list[Trial], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trials(tmp_path)
    fit_together(found, ARM, reporter=QUIET)
    monkeypatch.setattr("research.train.fit.run_stage", None)  # all is there
    assert same_bits(ends(found), singly[1])
    assert [rows(trial) for trial in found] == [rows(trial) for trial in singly[0]]


def test_one_that_is_behind_is_caught_up(
    tmp_path: Path, singly: tuple[list[Trial], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, real = trials(tmp_path), together.walk
    with monkeypatch.context() as patch:
        patch.setattr(together, "feed", interrupted_at(6))
        with pytest.raises(KeyboardInterrupt):
            fit_together(found, ARM, reporter=QUIET)
    for trial, kept in zip(found, ([4, 7], [4, 6], [4, 6]), strict=True):  # the first had taken its step
        manager = open_manager(steps_of(trial))
        assert sorted(manager.all_steps()) == kept
        manager.close()
    walked = []

    def seen(course, state, at, end, save_every):
        walked.append((len(state), at, end))
        return real(course, state, at, end, save_every)

    monkeypatch.setattr(together, "walk", seen)
    fit_together(found, ARM, reporter=QUIET)
    assert walked == [(2, 6, 7), (3, 7, 9)]
    assert same_bits(ends(found), singly[1])


def test_after_an_interrupt_each_may_go_on_alone(
    tmp_path: Path, singly: tuple[list[Trial], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trials(tmp_path)
    monkeypatch.setattr(together, "feed", interrupted_at(2))
    with pytest.raises(KeyboardInterrupt):
        fit_together(found, ARM, reporter=QUIET)
    assert same_bits(ends(found), singly[1])


def steps_of(trial: Trial) -> Path:
    return trial.workdir / "stages" / stage_key(trial.exp, ARM, 0) / "steps"


def interrupted_at(stop: int):
    """A feed with a Ctrl-C at a step, when the first of the trials has taken it and the others have not."""
    real = together.feed

    def feed(*words):
        stream = real(*words)

        def draw(seed, step):
            if (seed, step) == (1, stop):
                raise KeyboardInterrupt
            return stream(seed, step)

        return draw

    return feed


@pytest.mark.slow
def test_in_one_program_the_losses_are_those_of_each_alone(
    tmp_path: Path, singly: tuple[list[Trial], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trials(tmp_path)
    real = together.run_parts
    monkeypatch.setattr(together, "STEPS", 4)
    monkeypatch.setattr(together, "run_parts", lambda *words: real(*words, scan=True))
    fit_together(found[:2], ARM, devices=2, reporter=QUIET)
    for trial, alone in zip(found[:2], singly[0][:2], strict=True):
        losses = [[row["loss"] for row in rows(each)] for each in (trial, alone)]
        # Four steps, of renders drawn in one go: a pixel on an edge may fall to the other side.
        assert losses[0][0] == pytest.approx(losses[1][0], abs=3e-5)
        assert losses[0] == pytest.approx(losses[1], rel=5e-2)  # and what Adam makes of it; see test_population


def test_a_loss_that_breaks_stops_the_pack(tmp_path: Path) -> None:
    found = trials(tmp_path)
    found[1] = Trial(smoke(v1_steps(9), "save_every=4", "optim.lr=1e30"), tmp_path / "1")
    with pytest.raises(NonFiniteLoss, match="step 1"):
        fit_together(found, ARM, reporter=QUIET)


def test_what_trains_together_differs_in_seeds_and_floats_only() -> None:
    exp = smoke()
    alike = smoke("seed=5", "optim.lr=0.5", "squeeze.gates.budget_ms=2.0", "tracks.v2.stages.dense.lr_end=0.5")
    assert shape_of(exp) == shape_of(alike)
    check_alike([exp, alike])
    for word in ("optim.batch=16", "tracks.v2.stages.dense.steps=5", "data.look.shift=0.3", "optim.loss=l1"):
        with pytest.raises(ValueError, match="do not train together"):
            check_alike([exp, smoke(word)])
    with pytest.raises(ValueError, match="do not train together"):
        check_alike([exp, _other_pattern(exp)])


def _other_pattern(exp: Experiment) -> Experiment:
    import dataclasses as dc

    return dc.replace(exp, squeeze=Named(tuple((n, NM(1, 4) if n == "sparse" else x) for n, x in exp.squeeze.items)))
