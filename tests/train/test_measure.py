"""What is measured is what is shipped: prices, folding, the exported file, and every link's mark on it."""

import dataclasses as dc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.data.rendered_hands import prepare_test_set, read_test_set
from research.graph import read_metadata
from research.npu import U55_128, U85_128, referee
from research.pytrees import count
from research.spec import Named, named
from research.squeeze import NM, Variables
from research.train import measure as room
from research.train.arms import Arm, full
from research.train.evaluate import errors, predict, predict_tflite
from research.train.fit import fit
from research.train.loop import batches
from research.train.measure import calibration_images, measure, price_network, ship
from tests.smoke import Finished, smoke

EXP = smoke()
NET = EXP.tracks["v1"].net
FULL = full(EXP)
# Side of the output plane of every layer with weights.
OUTPUT_SIDES = {
    "stem": 16, "b0/expand": 16, "b0/depthwise": 8, "b0/project": 8, "b1/expand": 8, "b1/depthwise": 8,
    "b1/project": 8, "b2/expand": 8, "b2/depthwise": 4, "b2/project": 4, "neck": 4, "head": 1,
}  # fmt: skip


def measured(run: Finished, arm: str) -> dict[str, Any]:
    return json.loads((run.workdir / "measured" / f"{arm}.json").read_text())


def test_the_file_carries_its_ledger(finished: Finished) -> None:
    told = read_metadata(finished.export(FULL.name))
    ledger = json.loads(told["ledger"])
    assert [entry["name"] for entry in ledger] == ["dense", "squeeze", "gates", "finish", "fold", "quantise"]
    assert ledger == finished.result["arms"][FULL.name]["ledger"]
    assert told["experiment"] == EXP.name


def test_a_fold_that_changes_the_output_is_refused(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = room.fold

    def broken(epsilon: float) -> Any:
        rewrite = fold(epsilon)

        def wrong(net: Any, variables: Variables, data: Any) -> Any:
            net, folded, report = rewrite(net, variables, data)
            stem = folded.params["stem"] | {"bias": folded.params["stem"]["bias"] + 0.5}
            return net, Variables(folded.params | {"stem": stem}, {}), report

        return wrong

    outcome = fit(EXP, Arm("v1"), finished.workdir, devices=1)
    monkeypatch.setattr(room, "fold", broken)
    with pytest.raises(ValueError, match=r"folding changed the output by .* \(> 0\.001\)"):
        ship(EXP, outcome)


def test_shipping_is_repeatable_to_the_byte(finished: Finished) -> None:
    outcome = fit(EXP, FULL, finished.workdir, devices=1)
    model, kernels, shipped = ship(EXP, outcome)
    assert model == finished.export(FULL.name)
    assert "b0/expand/norm/scale" not in kernels
    assert len(shipped.ledger) == len(outcome.ledger) + 2
    assert shipped.ledger[-2]["detail"]["max_difference"] < room.FOLD_EQUAL_TO


def test_measured_errors_are_those_of_the_file_and_of_the_network(finished: Finished) -> None:
    images, truth = read_test_set(prepare_test_set(EXP.data, EXP.seed, finished.workdir / "data"))
    for arm in (Arm("v1"), FULL):
        outcome, told = fit(EXP, arm, finished.workdir, devices=1), measured(finished, arm.name)
        floats = predict(outcome.net, outcome.params, outcome.norm_stats, images)
        assert told["float"] == pytest.approx(errors(floats, truth, 32))
        assert told["int8"] == errors(predict_tflite(finished.export(arm.name), images), truth, 32)
        assert abs(told["int8"]["error_px"] - told["float"]["error_px"]) < 1.0


def test_referee_numbers_are_the_referees(finished: Finished) -> None:
    told = measured(finished, "v1")
    assert set(told["chips"]) == {U55_128.name, U85_128.name}
    for chip in (U55_128, U85_128):
        verdict, on_chip = referee(finished.export("v1"), chip), told["chips"][chip.name]
        assert on_chip["ms_referee"] == verdict.ms
        assert on_chip["kb_encoded"] == verdict.weights_kb_encoded
        assert on_chip["sram_kb"] == verdict.sram_kb
        by_name = {layer.name: layer.cycles for layer in verdict.layers}
        found = {layer["name"]: layer["cycles_referee"] for layer in on_chip["layers"]}
        assert {name: cycles for name, cycles in found.items() if cycles} == {
            n: c for n, c in by_name.items() if c
        }
    assert set(measured(finished, FULL.name)["chips"]) == {U85_128.name}


def test_parameters_and_macs_are_counted(finished: Finished) -> None:
    outcome = fit(EXP, FULL, finished.workdir, devices=1)
    _, kernels, _ = ship(EXP, outcome)
    told = measured(finished, FULL.name)
    assert told["params"] == count(kernels)
    by_hand = sum(kernels[f"{unit}/kernel"].size * side * side for unit, side in OUTPUT_SIDES.items())
    assert told["chips"][U85_128.name]["macs"] == by_hand


def test_price_of_a_network_and_of_its_links() -> None:
    dense, sparse = price_network(NET, U85_128, Named()), price_network(NET, U85_128, named(sparse=NM(2, 4)))
    assert sparse["ms_simulated"] < dense["ms_simulated"]
    assert sparse["weights_kb_simulated"] < dense["weights_kb_simulated"]
    assert sparse["params"] == dense["params"] > 0
    assert sparse["macs"] == dense["macs"]
    wider = price_network(NET.resized({"b1": 64}), U85_128, Named())
    assert all(wider[key] >= dense[key] for key in dense)


def test_simulated_price_is_near_the_referees(finished: Finished) -> None:
    for row in finished.result["rows"]:
        assert row["ms_simulated"] == pytest.approx(row["ms_referee"], rel=0.1)


def test_calibration_images_are_as_many_as_asked_and_no_training_images() -> None:
    exp = dc.replace(EXP, calibration_images=13)
    images = calibration_images(exp)
    assert images.shape == (13, 32, 32)
    assert images[:8].tobytes() == calibration_images(dc.replace(EXP, calibration_images=8)).tobytes()
    trained = np.concatenate([np.asarray(batches(exp.data, 8)(exp.seed, step)["image"]) for step in range(4)])
    assert not np.any(np.all(images[:, None] == trained[None], axis=(2, 3)))


def test_measure_writes_the_file_it_measured(finished: Finished, tmp_path: Path) -> None:
    images, truth = read_test_set(prepare_test_set(EXP.data, EXP.seed, finished.workdir / "data"))
    outcome = fit(EXP, Arm("v1"), finished.workdir, devices=1)
    found = measure(EXP, "v1", outcome, (images, truth), (U85_128,), tmp_path / "exports")
    assert (tmp_path / "exports" / "v1.tflite").read_bytes() == finished.export("v1")
    again = measured(finished, "v1")
    assert found["file_kb"] == len(finished.export("v1")) / 1024
    assert found["int8"] == again["int8"]
    assert json.loads(json.dumps(found))["chips"][U85_128.name] == again["chips"][U85_128.name]
