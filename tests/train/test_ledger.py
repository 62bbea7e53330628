"""The ledger rebuilds shapes; illegal experiments are refused, each for its own reason."""

import dataclasses as dc
import json
from typing import Any

import pytest

from research.spec import Experiment, Stage, Track, named
from research.train.ledger import check_experiment, rebuild, rewrite_entry, stage_entry
from tests.experiments import EXPERIMENT, NET

USED = ("gates", "sparse", "distill", "quant")
DENSE = Stage("dense", 10)
SEARCH = Stage("search", 10, ("gates", "distill"), ("gates",))
FINISH = Stage("finish", 10, ("sparse", "distill", "quant"))


def with_stages(*stages: Stage, teacher: str = "teacher") -> Experiment:
    """An experiment whose target lives through these stages."""
    return with_track(Track(NET, stages, teacher))


def with_track(track: Track, name: str = "v2") -> Experiment:
    return dc.replace(LEGAL, tracks=LEGAL.tracks.replace(name, track))


def changed(**fields: Any) -> Experiment:
    return dc.replace(LEGAL, **fields)


LEGAL = dc.replace(
    EXPERIMENT,
    tracks=EXPERIMENT.tracks.replace("v2", Track(NET, (DENSE, SEARCH, FINISH), "teacher")),
    claims=named(sparse="1.5x"),
    rows=("quant", "sparse", "gates", "distill"),
)


def test_a_legal_experiment_passes() -> None:
    check_experiment(LEGAL)
    check_experiment(changed(rows=(), claims=named()))


def test_links_without_a_view_may_go_on_after_anything_was_settled() -> None:
    check_experiment(with_stages(SEARCH, FINISH, Stage("polish", 5, ("distill",))))


ILLEGAL = [
    (changed(baseline="v0"), "baseline='v0' is no track; known: v1"),
    (changed(target="v9"), "target='v9' is no track"),
    (
        changed(squeeze=named(**{n: LEGAL.squeeze[n] for n in ("sparse", "gates", "distill", "quant")})),
        "illegal chain",
    ),
    (changed(calibration_images=0), "must be positive"),
    (changed(save_every=0), "must be positive"),
    (changed(optim=dc.replace(LEGAL.optim, batch=0)), "must be positive"),
    (changed(data=dc.replace(LEGAL.data, size_px=48)), "takes 64 px crops, but data.size_px=48"),
    (with_stages(DENSE, SEARCH, FINISH, teacher="techer"), "is no track; did you mean 'teacher'?"),
    (with_track(Track(NET, (DENSE,), "v1"), "teacher"), "must not have a teacher itself"),
    (with_track(Track(NET, ()), "v1"), "needs stages with different names"),
    (with_stages(SEARCH, FINISH, dc.replace(DENSE, name="finish")), "needs stages with different names"),
    (with_stages(dc.replace(DENSE, steps=0), SEARCH, FINISH), "steps=0 trains nothing"),
    (with_stages(SEARCH, dc.replace(FINISH, links=("sparce",))), "no link 'sparce'; did you mean 'sparse'?"),
    (with_stages(SEARCH, FINISH, Stage("again", 5, ("gates",))), "'gates' was settled before stage 'again'"),
    (with_stages(SEARCH, FINISH, Stage("again", 5, ("distill",), ("gates",))), "'gates' was settled before"),
    (with_stages(Stage("prune", 5, ("sparse",), ("sparse",)), SEARCH, FINISH), "would undo what was settled"),
    (with_stages(dc.replace(SEARCH, links=("distill",)), FINISH), "settles 'gates' without training it"),
    (with_stages(dc.replace(SEARCH, settle=()), FINISH), r"\['gates'\] never settled"),
    (
        with_stages(SEARCH, dc.replace(FINISH, links=("sparse", "distill"))),
        "link 'quant' of squeeze is used in no",
    ),
    (changed(rows=("sparse", "gates")), "must name every link of squeeze once"),
    (changed(rows=(*USED, "sparse")), "must name every link of squeeze once"),
    (changed(claims=named(sparce="2x")), "claim 'sparce' belongs to no link; did you mean 'sparse'?"),
]


@pytest.mark.parametrize(("exp", "says"), ILLEGAL, ids=[says for _, says in ILLEGAL])
def test_an_illegal_experiment_is_refused(exp: Experiment, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        check_experiment(exp)
    assert "\n" not in str(error.value)


def test_rebuild_follows_every_rewrite_and_survives_json() -> None:
    ledger = [
        stage_entry(SEARCH, ("gates",)),
        rewrite_entry("gates", {"widths": {"b0": 24, "b2": 8}, "latency_ms": 0.5}),
        stage_entry(FINISH, ("sparse",)),
        rewrite_entry("again", {"widths": {"b0": 16}}),
        rewrite_entry("fold", {"folded": 3}),
    ]
    net = rebuild(NET, json.loads(json.dumps(ledger)))
    assert [block.mid for block in net.blocks] == [16, 64, 8]
    assert rebuild(NET, ledger[:1]) == NET
    assert ledger[0] == {"kind": "stage", "name": "search", "detail": {"steps": 10, "links": ["gates"]}}


def test_an_entry_is_not_changed_by_its_report() -> None:
    report = {"widths": {"b0": 8}}
    entry = rewrite_entry("gates", report)
    report["later"] = {}
    assert entry["detail"] == {"widths": {"b0": 8}}
