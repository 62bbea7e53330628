"""The whole job: what it builds from a finished run, and what it refuses before training."""

import base64
import importlib.util
import io
import json

import numpy as np
import pytest
from PIL import Image

from research.data.rendered_hands import prepare_test_set, read_test_set
from research.report import job
from research.train.arms import Arm, all_arms, full
from research.train.evaluate import predict_tflite
from tests.smoke import Finished


def test_every_arm_has_its_history(finished: Finished) -> None:
    assert set(finished.result["arms"]) == {arm.name for arm in all_arms(finished.exp)}
    for name, arm in finished.result["arms"].items():
        steps = [stage.steps for stage in finished.exp.tracks[name.split("+")[0]].stages]
        assert arm["train"]["step"][-1] == sum(steps)
        assert arm["train"]["step"] == sorted(arm["train"]["step"])
        done = [entry["name"] for entry in arm["ledger"]]
        assert done[-2:] == ["fold", "quantise"]
        assert ("gates" in done) == ("gates" in name)


def test_stages_of_the_full_arm_end_where_the_table_ends(finished: Finished) -> None:
    stages = finished.result["arms"][full(finished.exp).name]["stages"]
    assert [stage["stage"] for stage in stages] == ["dense", "squeeze", "finish"]
    assert stages[-1]["error_px"] == pytest.approx(finished.result["rows"][-1]["error_px_float"], rel=1e-5)


def test_compaction_is_in_the_ledger_and_in_the_count_of_parameters(finished: Finished) -> None:
    rows = {row["technique"]: row for row in finished.result["rows"]}
    assert rows["gates"]["params"] < rows["distill"]["params"]
    ledger = finished.result["arms"][full(finished.exp).name]["ledger"]
    (settled,) = [entry for entry in ledger if entry["name"] == "gates"]
    assert settled["detail"]["max_difference"] <= 1e-4
    assert settled["detail"]["latency_ms"] <= settled["detail"]["budget_ms"]


def test_gallery_shows_the_test_set_and_the_shipped_files(finished: Finished) -> None:
    images, truth = read_test_set(prepare_test_set(finished.exp.data, 0, finished.workdir / "data"))
    hand = finished.result["gallery"][3]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(hand["image_png_base64"]))))
    assert np.array_equal(shown, np.round(images[3] * 255).astype(np.uint8))
    np.testing.assert_allclose(hand["true"], truth[3], atol=1e-4)
    for who, arm in (("v1", Arm("v1")), ("v2", full(finished.exp))):
        predicted = predict_tflite(finished.export(arm.name), images[3:4])[0]
        np.testing.assert_allclose(hand[who], predicted, atol=1e-4)


def test_result_is_plain_finite_json(finished: Finished) -> None:
    text = (finished.workdir / "result.json").read_text()
    read = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert (read["rows"], read["arms"]) == (finished.result["rows"], finished.result["arms"])
    assert finished.result["demo"]
    assert finished.result["n"] == 1


@pytest.mark.parametrize("package", sorted(job.NEEDS))
def test_a_missing_package_names_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name, *rest)
    )
    with pytest.raises(ModuleNotFoundError, match=rf"{package}.*\[{job.NEEDS[package]}\]"):
        job.check_packages()
