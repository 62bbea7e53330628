"""The whole job of a config: train every arm, measure each, build the table, write result.json and report.html."""

from __future__ import annotations

import base64
import functools
import importlib.util
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from research.data.stream import held_out_set
from research.npu import energy
from research.report.page import write_report
from research.report.rows import rows
from research.report.tables import console_table, markdown_table
from research.spec import Experiment
from research.train import record
from research.train.arms import Arm, all_arms, full, stage_key
from research.train.evaluate import errors, predict, predict_tflite
from research.train.fit import Outcome, check_links, fit
from research.train.hosts import by_first, first_only, held_by_first, is_first, stop_if_told
from research.train.ledger import check_experiment
from research.train.measure import measure, price_network
from research.train.mesh import check_batch, data_mesh
from research.train.progress import Reporter
from research.train.together import Trial, check_alike, fit_together

Images = tuple[np.ndarray, np.ndarray]
NEEDS = {"ethosu": "npu", "ai_edge_litert": "npu", "matplotlib": "report", "jinja2": "report"}
GALLERY = 12
ENERGY_NOTE = (
    "modelled, never measured: static power over the frame plus MACs, SRAM and flash bytes at 45 nm prices, "
    "with one scale that puts the frozen V1 at 2.16 mJ on its old chip"
)


def reproduce(
    exp: Experiment,
    workdir: Path,
    *,
    overrides: tuple[str, ...] = (),
    devices: int = 1,
    model: int = 1,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Runs an experiment to its report in `workdir`, or what is left of it, and returns the result.

    With several processes each calls this; all train, the first does everything else. `devices` and `model` as for
    `fit`. Raises ValueError (illegal experiment, infeasible budget, foreign or unwritable workdir, a loss that is not
    finite) and ModuleNotFoundError before anything is trained wherever that can be known.
    """
    reporter = reporter or Reporter(quiet=True)
    check_experiment(exp)
    check_links(exp)
    check_packages()
    check_batch(data_mesh(devices, model), exp.optim.batch)
    with held_by_first(lambda: record.locked(workdir)):
        by_first(lambda: record.claim(workdir, exp, overrides))
        test = first_only(lambda: held_out_set(exp.data, exp.seed, workdir / "data"))
        measured: dict[str, Any] = {}
        for arm in all_arms(exp):
            outcome = fit(exp, arm, workdir, devices=devices, model=model, reporter=reporter)
            measured[arm.name] = by_first(
                functools.partial(_measured, exp, arm, outcome, test, workdir, reporter)
            )
            stop_if_told()
        stages = range(len(exp.tracks[exp.target].stages))
        parts = [
            fit(exp, full(exp), workdir, devices=devices, model=model, upto=index + 1) for index in stages
        ]
        result: dict[str, Any] = by_first(
            lambda: _written(build_result(exp, workdir, measured, parts, test), workdir)
        )
    if is_first():
        reporter.show(console_table(result))
    reporter.say(
        f"report: {workdir / 'report.html'}   table: {workdir / 'table.md'}   networks: {workdir / 'exports'}"
    )
    return result


def reproduce_together(
    trials: Sequence[Trial],
    *,
    overrides: Sequence[tuple[str, ...]],
    devices: int = 1,
    reporter: Reporter | None = None,
) -> None:
    """`reproduce` of several experiments of one shape in one process, their networks trained side by side.

    Each ends with what `reproduce` alone would leave in its workdir. Errors as `reproduce`, and ValueError for
    experiments that differ in more than seeds and floats.
    """
    reporter = reporter or Reporter(quiet=True)
    check_alike([trial.exp for trial in trials])
    check_packages()
    for trial in trials:
        check_experiment(trial.exp)
        check_links(trial.exp)
    with ExitStack() as stack:
        for trial, words in zip(trials, overrides, strict=True):
            stack.enter_context(record.locked(trial.workdir))
            record.claim(trial.workdir, trial.exp, words)
        for arm in all_arms(trials[0].exp):
            fit_together(trials, arm, devices=devices, reporter=reporter)
    for trial, words in zip(trials, overrides, strict=True):
        reproduce(trial.exp, trial.workdir, overrides=words, reporter=reporter)


def _measured(
    exp: Experiment, arm: Arm, outcome: Outcome, test: Images, workdir: Path, reporter: Reporter
) -> dict[str, Any]:
    """What is measured of a trained arm, read back where that was done before."""
    path = workdir / "measured" / f"{arm.name}.json"
    if not (path.exists() and (workdir / "exports" / f"{arm.name}.tflite").exists()):
        chips = (exp.old_chip, exp.new_chip) if arm.track == exp.baseline else (exp.new_chip,)
        found = measure(exp, arm.name, outcome, test, chips, workdir / "exports")
        record.write_json(path, found)
        where = found["chips"][exp.new_chip.name]
        reporter.say(
            f"{arm.name:<28} {where['ms_referee']:.3f} ms referee, {where['ms_simulated']:.3f} ms simulated, "
            f"{found['int8']['error_px']:.2f} px int8"
        )
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def _written(result: dict[str, Any], workdir: Path) -> dict[str, Any]:
    record.write_json(workdir / "result.json", result)
    record.write_bytes(workdir / "table.md", markdown_table(result).encode())
    write_report(result, workdir / "report.html")
    return result


def check_packages() -> None:
    """ModuleNotFoundError naming the extra that a missing optional package comes with."""
    for package, extra in NEEDS.items():
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"the main job needs the optional package {package}: pip install '.[{extra}]'"
            )


def build_result(
    exp: Experiment, workdir: Path, measured: Mapping[str, Any], parts: Sequence[Outcome], test: Images
) -> dict[str, Any]:
    """The content of result.json, in the form `report.schema` checks. One seed is a demo.

    `parts` are the outcomes of the target with every link, stage after stage.
    """
    arms = {name: _history(exp, workdir, name, found) for name, found in measured.items()}
    arms[full(exp).name]["stages"] = _stages(exp, parts, test)
    return {
        "name": exp.name,
        "n": 1,
        "demo": True,
        "command": record.command(),
        "created": record.now(),
        "versions": record.versions(),
        "device": record.device(),
        "energy": {"scale": energy.SCALE, "p_static_mw": energy.P_STATIC_MW, "note": ENERGY_NOTE},
        "rows": rows(exp, measured),
        "arms": arms,
        "gallery": _gallery(exp, workdir, test),
    }


def _history(exp: Experiment, workdir: Path, name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    track, *links = name.split("+")
    arm = Arm(track, tuple(links))
    curve: dict[str, list[float]] = {"step": [], "error_px": [], "loss": []}
    first = 0
    for index, stage in enumerate(exp.tracks[track].stages):
        for line in (
            (workdir / "stages" / stage_key(exp, arm, index) / "metrics.jsonl").read_text().splitlines()
        ):
            row = json.loads(line)
            curve["step"].append(first + row["step"])
            curve["error_px"].append(row.get("distance", row["task"]) * exp.data.size_px)
            curve["loss"].append(row["loss"])
        first += stage.steps
    layers = {chip: on_chip["layers"] for chip, on_chip in found["chips"].items()}
    return {"train": curve, "layers": layers, "ledger": found["ledger"], "stages": []}


def _stages(exp: Experiment, parts: Sequence[Outcome], test: Images) -> list[dict[str, Any]]:
    out = []
    for stage, at in zip(exp.tracks[exp.target].stages, parts, strict=True):
        links = exp.squeeze.only([name for name in stage.links if name not in stage.settle])
        priced = price_network(at.net, exp.new_chip, links)
        found = errors(predict(at.net, at.params, at.norm_stats, test[0]), test[1], at.net.size_px)
        out.append(
            {"stage": stage.name, "ms_simulated": priced["ms_simulated"], "error_px": found["error_px"]}
        )
    return out


def _gallery(exp: Experiment, workdir: Path, test: Images) -> list[dict[str, Any]]:
    images, truth = test[0][:GALLERY], test[1][:GALLERY]
    models = {"v1": Arm(exp.baseline), "v2": full(exp)}
    seen = {
        who: predict_tflite((workdir / "exports" / f"{arm.name}.tflite").read_bytes(), images)
        for who, arm in models.items()
    }
    out = []
    for i, image in enumerate(images):
        png = io.BytesIO()
        Image.fromarray(np.round(image * 255).astype(np.uint8)).save(png, "PNG")
        points = {"true": truth[i], "v1": seen["v1"][i], "v2": seen["v2"][i]}
        out.append(
            {"image_png_base64": base64.b64encode(png.getvalue()).decode()}
            | {who: np.round(xy, 4).tolist() for who, xy in points.items()}
        )
    return out
