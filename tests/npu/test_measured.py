"""A table of measurements is read exactly or refused in one line that names the place."""

from pathlib import Path

import pytest

from research.npu.measured import Measured, networks_of, read_measured
from tests.npu.networks import hand_network


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "m.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_layers_and_networks(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffnetwork, layer, ms\r\na.tflite,,1.5\r\n\r\na.tflite,stem,0.25\r\n")
    assert read_measured(path) == (Measured("a.tflite", "", 1.5), Measured("a.tflite", "stem", 0.25))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the first line must be 'network,layer,ms', got ''"),
        ("network,ms\na,1\n", "got 'network,ms'"),
        ("network,layer,ms\n", "no measurements under the header"),
        ("network,layer,ms\na,,1\nb,2\n", r"m\.csv, line 3: needs 3 cells .* has 2"),
        ("network,layer,ms\na,,1,5\n", "line 2: needs 3 cells .* has 4"),
        ("network,layer,ms\na,,fast\n", "line 2: ms must be a number, got 'fast'"),
        ("network,layer,ms\na,,-1\n", "line 2: ms must be above 0 and finite, got '-1'"),
        ("network,layer,ms\na,,nan\n", "above 0 and finite, got 'nan'"),
        ("network,layer,ms\n,x,1\n", "line 2: the network is empty"),
        ("network,layer,ms\na,x,1\na,x,2\n", "line 3: 'x' of 'a' is there twice"),
        ('network,layer,ms\n"a,x,1\n', "not a CSV file"),
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        read_measured(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_networks_lie_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(hand_network(0, False).model)
    measured = (Measured("a.tflite", "", 1.0), Measured("a.tflite", "stem", 1.0))
    found = networks_of(measured, tmp_path)
    assert list(found) == ["a.tflite"]
    assert "stem" in found["a.tflite"].names
    with pytest.raises(ValueError, match=r"no network 'b\.tflite' where the measurements lie"):
        networks_of((Measured("b.tflite", "", 1.0),), tmp_path)
    (tmp_path / "b.tflite").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"b\.tflite: .*tflite"):
        networks_of((Measured("b.tflite", "", 1.0),), tmp_path)
