"""The fidelity bench on a few networks, layers and edits, judged by the real compiler; its figures by hand."""

import dataclasses
import json

import numpy as np
import pytest

from research.bench import fidelity, population
from research.bench.fidelity import Court, Sample
from research.bench.pricing import Priced
from research.npu import U55_128, Verdict, referee
from tests.npu.networks import hand_network

SMALL = ["--networks", "2", "--layers", "5", "--edits", "10", "--processes", "1", "--seed", "21"]


@pytest.fixture(scope="module")
def found() -> Sample:
    return fidelity.sample(21, 2, 5, 10)


SAID = referee(hand_network(0, False).model, U55_128)


def verdict(cycles: float, *layers: tuple[str, float]) -> Verdict:
    """A verdict of 10 KiB and these layers."""
    rows = tuple(dataclasses.replace(SAID.layers[0], name=name, cycles=each) for name, each in layers)
    return dataclasses.replace(SAID, cycles=cycles, sram_kb=10.0, layers=rows)


def test_a_sample_follows_from_the_seed_and_edits_differ_from_their_networks(found: Sample) -> None:
    again = fidelity.sample(21, 2, 5, 10)
    for one, other in (
        (found.networks, again.networks),
        (found.layers, again.layers),
        (found.edits, again.edits),
    ):
        assert [x.made.model for x in one] == [x.made.model for x in other]
    assert len(found.edits) == len(found.edit_of) == 10
    for case, (index, kind) in zip(found.edits, found.edit_of, strict=True):
        assert kind in population.EDITS
        assert case.made.model != found.networks[index].made.model
    assert all(not any(x.zeros == "2:4" for x in twin.made.recipe) for twin in found.dense.values())
    assert len(found.layers) == len(found.layer_kinds) == 5


@pytest.mark.slow
def test_the_bench_measures_one_chip_and_says_what_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command: both baselines, every figure, one line of JSON; and 1 with --check where a bar is missed."""
    status = fidelity.main([*SMALL, "--chips", "u55-128", "--check"])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures = said["chips"]["Ethos-U55-128"]
    own = figures["faces"]["cost"]
    assert (said["networks"], said["layers"], said["edits"]) == (2, 5, 10)
    assert own["mape_percent"] < 10
    assert set(figures["baselines"]) == {
        f"{x}_{y}" for x in ("macs_only", "regression") for y in ("mape_percent", "tau")
    }
    assert own["mape_interval"][0] <= own["mape_percent"] <= own["mape_interval"][1]
    assert own["edits"]["edits"] == 10
    assert own["sram_error_percent"] < 15
    assert own["ablations"]["Grouping"]["largest_effect"] == 1.0
    assert own["ablations"]["WeightBuffering"]["largest_effect"] > 1.05
    assert status == bool(said["missed"])


def test_a_switch_that_does_nothing_is_told_so(found: Sample) -> None:
    names = {(name, chip.memory_mode): yes for name, chip, _, yes in fidelity._ablations(found, U55_128)}
    assert names == {
        ("Grouping", "Shared_Sram"): False,
        ("WeightBuffering", "Shared_Sram"): True,
        ("FMStaging", "Shared_Sram"): False,
        ("FMStaging", "Dedicated_Sram"): True,
    }
    court = Court()
    for name, chip, cases, does in fidelity._ablations(found, U55_128):
        before, after = (court.verdicts(cases, chip, "", off) for off in ("", name))
        changes = max(b.cycles / a.cycles for a, b in zip(before, after, strict=True))
        assert (changes > 1.05) == does, (name, chip.memory_mode)


def test_figures_of_networks_and_layers_by_hand() -> None:
    prices = [Priced({"layer": 90.0}, 110.0, 9.0), Priced({}, 190.0, 12.0)]
    said = [verdict(100.0, ("layer", 100.0)), verdict(200.0)]
    figures = fidelity.network_figures(prices, said)
    assert figures["mape_percent"] == pytest.approx(7.5)
    assert figures["bias_percent"] == pytest.approx(2.5)
    assert figures["worst_percent"] == pytest.approx(10.0)
    assert figures["tau"] == 1.0
    assert figures["sram_error_percent"] == pytest.approx(15.0)
    assert figures["sram_within_share"] == 0.0
    layers = fidelity.layer_figures(("conv", "conv"), said, prices)
    assert layers == {"conv": (2, pytest.approx(7.5), pytest.approx(7.5))}  # 10 % alone, 5 % inside a network


def test_figures_of_edits_and_switches_by_hand() -> None:
    before = np.array([100.0, 100.0, 100.0, 100.0]), np.array([1000.0, 1000.0, 1000.0, 1000.0])
    after = np.array([101.0, 99.0, 100.5, 103.0]), np.array([1010.0, 1020.0, 1001.0, 1030.0])
    figures = fidelity.edit_figures(before, after)
    assert (figures["edits"], figures["counted"]) == (4, 3)  # 0.1 % is not counted
    assert figures["sign_share"] == pytest.approx(2 / 3)
    effect = fidelity.ablation_figures(np.array([1.5, 1.2]), np.array([1.5, 1.0]), expected=True)
    assert effect["within_share"] == 0.5
    assert effect["largest_effect"] == pytest.approx(1.5)
    assert effect["error_worst_percent"] == pytest.approx(20.0)


def test_rare_kinds_are_named(found: Sample) -> None:
    rare = fidelity.rare_kinds([case.made for case in found.networks])
    counted = [set(population.kinds(case.made)) for case in found.networks]
    assert len(rare) == len(population.KINDS - set.union(*counted))
    assert all("is in 0 of 2 networks" in line for line in rare)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--chips", "u95-1"], "no chip 'u95-1'"),
        (["--chips", "systolic-16x16-ws"], "Ethos-U chips only"),
        (["--networks", "0"], "at least one network"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fidelity.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_figures_are_rounded_for_the_line() -> None:
    assert fidelity.rounded({"a": (1, 0.123456), "b": True, "c": np.float64(2.00001)}) == {
        "a": [1, 0.1235],
        "b": True,
        "c": 2.0,
    }


@pytest.mark.slow
def test_two_processes_say_what_one_says(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole bench in two processes, and its bars on networks at this small size."""
    lines = []
    for count in ("1", "2"):
        fidelity.main([*SMALL[:6], "--processes", count, "--seed", "22", "--chips", "u85-128"])
        lines.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert lines[0] == lines[1]
