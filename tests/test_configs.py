"""Every config is a runnable page: it loads, says its command, time and score, and runs end to end when shrunk."""

import dataclasses as dc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.graph import inspect
from research.spec import Experiment, config_module, load, override
from research.train.arms import full, without
from research.train.evaluate import predict_tflite
from research.train.fit import fit
from research.train.ledger import check_experiment
from research.train.measure import ship
from tests.smoke import CONFIG, ROOT, Finished, run, smoke

CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def lookup(result: Any, dotted: str) -> Any:
    """The value at a dotted path of keys and list indices."""
    for part in dotted.split("."):
        result = result[int(part)] if isinstance(result, list) else result[part]
    return result


def misses(result: Any, expect: dict[str, tuple[float, float]]) -> list[str]:
    """What a result holds outside the tolerance of a config's EXPECT."""
    found = {dotted: lookup(result, dotted) for dotted in expect}
    return [f"{d}: {found[d]} is not {v} +- {t}" for d, (v, t) in expect.items() if abs(found[d] - v) > t]


def test_the_main_job_is_there() -> None:
    assert CONFIG in CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_page_is_short_and_says_what_to_expect(path: Path) -> None:
    module = config_module(path)
    assert len(path.read_text().splitlines()) < 60
    for word in ("Command:", "Time:", "Expect:"):
        assert word in (module.__doc__ or "")
    check_experiment(load(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_sweep_points_are_valid_and_different(path: Path) -> None:
    points = list(config_module(path).sweep())
    made = []
    for point in points:
        exp = load(path)
        for dotted, value in point.items():
            exp = override(exp, dotted, value)
        made.append(exp)
    assert len(set(made)) == len(points) > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_expectation_is_met_by_the_committed_result(path: Path) -> None:
    result = json.loads((ROOT / "configs" / "results" / f"{path.stem}.json").read_text())
    assert misses(result, config_module(path).EXPECT) == []


def test_a_missed_expectation_is_told() -> None:
    assert misses({"rows": [{"ms": 2.0}]}, {"rows.0.ms": (1.0, 0.5)}) == ["rows.0.ms: 2.0 is not 1.0 +- 0.5"]
    assert misses({"rows": [{"ms": 2.0}]}, {"rows.0.ms": (1.9, 0.5)}) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in CONFIGS if path != CONFIG])
def test_other_configs_run_shrunk(tmp_path: Path, name: str) -> None:
    """The main job's own shrunk run is the fixture `finished`."""
    code, _, errors = run(tmp_path / name, config=ROOT / "configs" / f"{name}.py")
    assert code == 0, errors


def without_link(exp: Experiment, link: str) -> Experiment:
    """The experiment as if its config had never named a link."""

    def stripped(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if name != link)

    target = exp.tracks[exp.target]
    stages = tuple(
        dc.replace(stage, links=stripped(stage.links), settle=stripped(stage.settle))
        for stage in target.stages
    )
    return dc.replace(
        exp,
        tracks=exp.tracks.replace(exp.target, dc.replace(target, stages=stages)),
        squeeze=exp.squeeze.only(stripped(exp.squeeze.names)),
        claims=exp.claims.only(stripped(exp.claims.names)),
        rows=stripped(exp.rows),
    )


@pytest.mark.parametrize("link", smoke().squeeze.names)
def test_removing_a_rows_link_changes_the_exported_file(
    link: str, finished: Finished, tmp_path: Path
) -> None:
    exp = without_link(finished.exp, link)
    model, _, _ = ship(exp, fit(exp, full(exp), tmp_path, devices=1))
    assert model == finished.export(without(finished.exp, link).name)  # the row's leave-one-out, to the byte
    whole = finished.export(full(finished.exp).name)
    images = np.random.default_rng(0).uniform(size=(4, 32, 32))
    assert not np.array_equal(predict_tflite(model, images), predict_tflite(whole, images))
    sizes = [[facts.kernel_shape for facts in inspect(file)] for file in (model, whole)]
    sparse = [sum(facts.two_of_four for facts in inspect(file)) for file in (model, whole)]
    assert (sizes[0] != sizes[1]) == (link == "gates")
    assert (sparse[0] < sparse[1]) == (link == "sparse")
