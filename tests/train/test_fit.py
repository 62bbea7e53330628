"""Stages in order, each from the outcome before: what is on disk is not trained again, what is illegal is refused."""

import dataclasses as dc
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research import nets
from research.pytrees import flatten
from research.spec import Experiment
from research.squeeze import Variables, WidthGates, nm_mask
from research.train import fit as room
from research.train.arms import Arm, all_arms, full, stage_key
from research.train.fit import check_links, fit
from tests.smoke import Finished, arrays, largest_difference, same_bits, smoke

EXP = smoke()
FULL = full(EXP)
GATES = next(name for name, link in EXP.squeeze.items if isinstance(link, WidthGates))
SETTLED = next(i for i, stage in enumerate(EXP.tracks[EXP.target].stages) if GATES in stage.settle)


def copy_of(run: Finished, folder: Path, *gone: str) -> Path:
    """The stages of a finished run, without the outcomes named."""
    shutil.copytree(run.workdir / "stages", folder / "stages")
    for key in gone:
        shutil.rmtree(folder / "stages" / key / "outcome")
    return folder


def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the stages that are trained from here on."""
    seen: list[str] = []
    real = room.run_stage

    def noted(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["folder"].name)
        return real(*args, **kwargs)

    monkeypatch.setattr(room, "run_stage", noted)
    return seen


def test_finished_stages_are_read_and_their_shapes_come_from_the_ledger(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "run_stage", None)
    outcome = fit(EXP, FULL, finished.workdir, devices=1)
    (settled,) = [entry for entry in outcome.ledger if entry["kind"] == "rewrite"]
    assert settled["name"] == GATES
    widths = settled["detail"]["widths"]
    assert {f"b{i}": block.mid for i, block in enumerate(outcome.net.blocks)} == widths
    assert outcome.net != EXP.tracks["v2"].net  # something was cut
    shapes, _ = nets.shapes(outcome.net)
    for tree in (outcome.params, outcome.raw):
        assert {path: leaf.shape for path, leaf in flatten(tree).items()} == {
            path: leaf.shape for path, leaf in flatten(shapes).items()
        }
    kinds = [(entry["kind"], entry["name"]) for entry in outcome.ledger]
    stages = [("stage", stage.name) for stage in EXP.tracks["v2"].stages]
    assert kinds == [*stages[: SETTLED + 1], ("rewrite", GATES), *stages[SETTLED + 1 :]]
    assert settled["detail"]["max_difference"] <= room.EQUAL_TO


def test_every_arm_of_a_finished_run_is_finished_and_no_other(finished: Finished, tmp_path: Path) -> None:
    assert all(room.finished(EXP, arm, finished.workdir) for arm in all_arms(EXP))
    assert not any(room.finished(EXP, arm, tmp_path) for arm in all_arms(EXP))
    key = stage_key(EXP, FULL, len(EXP.tracks["v2"].stages) - 1)
    half = tmp_path / "stages" / key / "outcome" / "0.orbax-checkpoint-tmp"
    half.mkdir(parents=True)  # a save that was killed
    assert not room.finished(EXP, FULL, tmp_path)


def test_lost_stages_alone_are_trained_again_to_the_same_bits(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [stage_key(EXP, FULL, i) for i in range(SETTLED, len(EXP.tracks["v2"].stages))]
    workdir = copy_of(finished, tmp_path, *keys)
    for key in keys[1:]:
        shutil.rmtree(workdir / "stages" / key / "steps")
    seen = trained(monkeypatch)
    again = fit(
        EXP, FULL, workdir, devices=1
    )  # restores the state of a stage whose shapes are cut afterwards
    assert seen == keys
    before = fit(EXP, FULL, finished.workdir, devices=1)
    assert again.net == before.net
    assert again.ledger == before.ledger
    assert same_bits(again[1:4], before[1:4])


def test_raw_weights_go_on_and_the_view_is_shipped(finished: Finished) -> None:
    outcome = fit(EXP, FULL, finished.workdir, devices=1)
    raw, view = flatten(outcome.raw)["b1/expand/kernel"], flatten(outcome.params)["b1/expand/kernel"]
    np.testing.assert_array_equal(np.asarray(view), np.asarray(raw * nm_mask(raw, 2, 4)))
    assert np.count_nonzero(np.asarray(raw)) > np.count_nonzero(np.asarray(view))


def test_upto_stops_after_so_many_stages(finished: Finished) -> None:
    early = fit(EXP, FULL, finished.workdir, upto=1)
    assert len(early.ledger) == 1
    assert early.net == EXP.tracks["v2"].net
    assert same_bits(early[1:4], fit(EXP, Arm("v2"), finished.workdir, upto=1)[1:4])  # the shared dense stage
    untrained = fit(EXP, FULL, finished.workdir, upto=0)
    assert untrained.ledger == ()
    assert not same_bits(untrained.params, early.params)


def test_stages_continue_the_stream_and_start_from_the_weights_before(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    class Stop(Exception):
        pass

    def noted(program: Any, hyper: Any, start: Any, frozen: Any, **kwargs: Any) -> Any:
        calls.append(kwargs | {"start": start, "frozen": frozen})
        raise Stop

    monkeypatch.setattr(room, "run_stage", noted)
    workdir = copy_of(finished, tmp_path, *(stage_key(EXP, FULL, i) for i in (1, 2)))
    with pytest.raises(Stop):
        fit(EXP, FULL, workdir)
    before = fit(EXP, FULL, finished.workdir, upto=1)
    assert calls[0]["first"] == EXP.tracks["v2"].stages[0].steps
    assert same_bits(calls[0]["start"], (before.raw, before.norm_stats))
    assert same_bits(calls[0]["frozen"]["params"], fit(EXP, Arm("teacher"), workdir).params)


# Rewrites are checked


def test_a_rewrite_that_changes_the_output_is_refused(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = WidthGates.settle

    def broken(self: WidthGates, *args: Any) -> Any:
        rewrite = settle(self, *args)

        def wrong(net: Any, variables: Variables, data: Any) -> Any:
            net, (params, norm_stats), report = rewrite(net, variables, data)
            head = params["head"] | {"bias": params["head"]["bias"] + 1e-3}
            return net, Variables(params | {"head": head}, norm_stats), report

        return wrong

    workdir = copy_of(finished, tmp_path, *(stage_key(EXP, FULL, i) for i in (1, 2)))
    monkeypatch.setattr(WidthGates, "settle", broken)
    with pytest.raises(ValueError, match=r"rewrite of 'gates' changed the output by 0.001 \(> 0.0001\)"):
        fit(EXP, FULL, workdir, devices=1)
    assert not room.finished(EXP, FULL, workdir)
    monkeypatch.undo()
    again = fit(EXP, FULL, workdir, devices=1)  # nothing wrong was kept
    assert same_bits(again.params, fit(EXP, FULL, finished.workdir, devices=1).params)


def test_what_was_cut_contributed_nothing(finished: Finished) -> None:
    settled = fit(EXP, FULL, finished.workdir, upto=SETTLED + 1).ledger[-1]
    assert settled["kind"] == "rewrite"
    assert settled["detail"]["max_difference"] < 1e-5


# Known before training


def without_teacher(exp: Experiment) -> Experiment:
    track = dc.replace(exp.tracks["v2"], teacher="")
    return dc.replace(exp, tracks=exp.tracks.replace("v2", track))


@pytest.mark.parametrize(
    ("exp", "says"),
    [
        (smoke("squeeze.sparse.where=('x/*',)"), "sparsity rule 'x/\\*' matches nothing"),
        (
            smoke("squeeze.gates.budget_ms=1e-6"),
            "infeasible budget: 1e-06 ms, but the narrowest network takes",
        ),
        (smoke("squeeze.gates.lane=7"), "16 is not a multiple of lane=7"),
        (smoke("squeeze.distill.pairs=(('b9/add', 'b1/add'),)"), "the student has no site 'b9/add'"),
        (without_teacher(EXP), "distillation needs a teacher"),
    ],
    ids=["rule", "budget", "lane", "site", "teacher"],
)
def test_links_say_what_cannot_work(exp: Experiment, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_links(exp)


def test_an_illegal_experiment_is_not_fitted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes 32 px crops"):
        fit(smoke("data.size_px=48"), Arm("v1"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_ledger_on_disk_is_plain_json(finished: Finished) -> None:
    outcome = fit(EXP, FULL, finished.workdir)
    assert json.loads(json.dumps(outcome.ledger)) == [dict(entry) for entry in outcome.ledger]
    assert "kept" not in json.dumps(outcome.ledger)  # indices are for the check only
    assert len(arrays(outcome.norm_stats)) > 0
    assert largest_difference(outcome.params, outcome.raw) > 0
