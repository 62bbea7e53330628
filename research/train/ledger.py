"""The ledger: what was done to a network, in order. It travels in the checkpoint and rebuilds the shapes on restore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from research.pytrees import nearest
from research.spec import Experiment, Stage, Track
from research.squeeze import check_order
from research.squeeze.transform import ARCHITECTURE, LOSS

Entry = dict[str, Any]


def stage_entry(stage: Stage, links: Sequence[str]) -> Entry:
    """The entry of a stage trained to its end with these links."""
    return {"kind": "stage", "name": stage.name, "detail": {"steps": stage.steps, "links": list(links)}}


def rewrite_entry(name: str, report: Mapping[str, Any]) -> Entry:
    """The entry of a rewrite; `report["widths"]`, where there is one, is what `rebuild` reads."""
    return {"kind": "rewrite", "name": name, "detail": dict(report)}


def rebuild(net: Any, ledger: Sequence[Entry]) -> Any:
    """The spec a network has after the rewrites of a ledger, starting from its track's spec."""
    for entry in ledger:
        widths = entry["detail"].get("widths") if entry["kind"] == "rewrite" else None
        if widths:
            net = net.resized(widths)
    return net


def check_experiment(exp: Experiment) -> None:
    """ValueError for an illegal experiment: unknown tracks or links, an illegal order of views or of stages."""
    for role, name in (("baseline", exp.baseline), ("target", exp.target)):
        if name not in exp.tracks.names:
            raise ValueError(f"{role}={name!r} is no track; {nearest(name, exp.tracks.names)}")
    check_order(dict(exp.squeeze.items))
    if not exp.calibration_images > 0 or not exp.save_every > 0 or not exp.optim.batch > 0:
        raise ValueError("calibration_images, save_every and optim.batch must be positive")
    for name, track in exp.tracks.items:
        _check_track(exp, name, track)
    used = {link for stage in exp.tracks[exp.target].stages for link in stage.links}
    for link in exp.squeeze.names:
        if link not in used:
            raise ValueError(f"link {link!r} of squeeze is used in no stage of track {exp.target!r}")
    if exp.rows and sorted(exp.rows) != sorted(exp.squeeze.names):
        raise ValueError(
            f"rows={exp.rows} must name every link of squeeze once: {', '.join(exp.squeeze.names)}"
        )
    for claim in exp.claims.names:
        if claim not in exp.squeeze.names:
            raise ValueError(f"claim {claim!r} belongs to no link; {nearest(claim, exp.squeeze.names)}")


def _check_track(exp: Experiment, name: str, track: Track) -> None:
    at = f"track {name!r}"
    if track.net.size_px != exp.data.size_px:
        raise ValueError(f"{at}: takes {track.net.size_px} px crops, but data.size_px={exp.data.size_px}")
    if track.teacher and track.teacher not in exp.tracks.names:
        raise ValueError(
            f"{at}: teacher {track.teacher!r} is no track; {nearest(track.teacher, exp.tracks.names)}"
        )
    if track.teacher and exp.tracks[track.teacher].teacher:
        raise ValueError(f"{at}: its teacher {track.teacher!r} must not have a teacher itself")
    if not track.stages or len({stage.name for stage in track.stages}) != len(track.stages):
        raise ValueError(f"{at}: needs stages with different names")
    settled: dict[str, int] = {}
    open_gates: set[str] = set()
    for stage in track.stages:
        if stage.steps < 1:
            raise ValueError(f"{at}, stage {stage.name!r}: steps={stage.steps} trains nothing")
        for link in (*stage.links, *stage.settle):
            if link not in exp.squeeze.names:
                raise ValueError(
                    f"{at}, stage {stage.name!r}: no link {link!r}; {nearest(link, exp.squeeze.names)}"
                )
            if link in settled:
                raise ValueError(
                    f"{at}: illegal stage order: {link!r} was settled before stage {stage.name!r}"
                )
            kind = exp.squeeze[link].kind
            if kind != LOSS and settled and kind < max(settled.values()):
                raise ValueError(
                    f"{at}: illegal stage order: {link!r} in {stage.name!r} would undo what was settled before it"
                )
        for link in stage.settle:
            if link not in stage.links:
                raise ValueError(f"{at}, stage {stage.name!r}: settles {link!r} without training it")
        open_gates |= {link for link in stage.links if exp.squeeze[link].kind == ARCHITECTURE}
        open_gates -= set(stage.settle)
        settled |= {link: exp.squeeze[link].kind for link in stage.settle}
    if open_gates:
        raise ValueError(
            f"{at}: {sorted(open_gates)} never settled: what was chosen would not be what is shipped"
        )
