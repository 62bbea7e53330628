"""The command line: a table for people, a line of JSON for programs, one line for what is wrong."""

import json
from pathlib import Path

import pytest

from research.npu.__main__ import main
from tests.npu.networks import hand_network


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.tflite"
    path.write_bytes(hand_network(0, True).model)
    return path


def test_price_for_people(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["price", str(net), "--referee", "--against", "u55-128", "--plots", str(net.parent / "p")]) == 0
    )
    said = capsys.readouterr().out
    for words in ("b5/depthwise", "bound by", "Ethos-U85-128", "referee (Arm's compiler)", "Ethos-U55-128: "):
        assert words in said
    assert {path.name for path in (net.parent / "p").iterdir()} == {"roofline.svg", "sram.svg"}


def test_price_for_programs(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["price", str(net), "--chip", "systolic-16x16-os", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chip"] == "systolic-16x16-os"
    assert found["cycles"] == pytest.approx(sum(layer["cycles"] for layer in found["layers"]), rel=1e-6)


def test_chips_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chips"]) == 0
    said = capsys.readouterr().out
    assert "u85-128" in said
    assert "systolic-16x16-ws" in said


def test_calibrate_with_a_users_chip(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, table = net.parent / "mine.py", net.parent / "m.csv"
    mine.write_text(
        "import dataclasses\nfrom research.npu import U85_128\nCHIP = dataclasses.replace(U85_128, name='my')\n"
    )
    main(["price", str(net), "--json"])
    layers = json.loads(capsys.readouterr().out)["layers"]
    rows = [f"net.tflite,{layer['name']},{layer['cycles'] / 100e3}" for layer in layers]
    table.write_text("\n".join(["network,layer,ms", *rows]))
    command = ["calibrate", str(table), "--chip", str(mine), "--predict", str(net)]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chip"] == "my"
    assert found["gains"]["depthwise"] == pytest.approx(2, rel=0.05)
    assert found["predicted_ms"] == pytest.approx(sum(layer["cycles"] for layer in layers) / 100e3, rel=0.05)
    assert found["outside"] == []
    other = net.parent / "other.tflite"
    other.write_bytes(hand_network(2, True).model)
    assert main([*command[:-1], str(other)]) == 0
    said = capsys.readouterr().out
    assert "held out" in said
    assert "warning: extrapolates" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["price", "nowhere.tflite"], "nowhere.tflite"),
        (["price", "NET", "--chip", "u86"], "no chip 'u86'"),
        (["price", "NET", "--chip", "systolic-16x16-ws", "--referee"], "compiler knows no systolic"),
        (["price", "JUNK", "--referee"], "tflite"),
        (["price", "NET", "--referee", "--timeout-s", "0"], "no answer within 0 s"),
        (["calibrate", "JUNK"], "the first line must be"),
    ],
)
def test_bad_input_is_one_line(
    net: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (net.parent / "junk").write_text("junk")
    paths = {"NET": str(net), "JUNK": str(net.parent / "junk")}
    assert main([paths.get(a, a) for a in arguments]) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert not told.out
