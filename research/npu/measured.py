"""Measurements of a real chip from a CSV file with the fixed header `network,layer,ms`.

`network` is the path of a .tflite from where the CSV lies; `layer` is the name of the tensor that the layer makes,
or empty for the whole network; `ms` is the time of one frame.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from research.npu.network import Network, read_network

HEADER = ("network", "layer", "ms")


class Measured(NamedTuple):
    """One measurement; `layer` is "" for the whole network."""

    network: str
    layer: str
    ms: float


def read_measured(path: str | Path) -> tuple[Measured, ...]:
    """The rows of a CSV file. ValueError naming file and line for a bad one; FileNotFoundError for none."""
    try:
        text = Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8") from error
    try:
        lines = [(n, row) for n, row in enumerate(csv.reader(text.splitlines(), strict=True), 1) if row]
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV file: {error}") from error
    if not lines or tuple(cell.strip() for cell in lines[0][1]) != HEADER:
        got = ",".join(lines[0][1])[:60] if lines else ""
        raise ValueError(f"{path}: the first line must be {','.join(HEADER)!r}, got {got!r}")
    found: dict[tuple[str, str], Measured] = {}
    for number, row in lines[1:]:
        where = f"{path}, line {number}"
        one = _measured([cell.strip() for cell in row], where)
        if one[:2] in found:
            raise ValueError(
                f"{where}: {one.layer or 'the whole network'!r} of {one.network!r} is there twice"
            )
        found[one[:2]] = one
    if not found:
        raise ValueError(f"{path}: no measurements under the header")
    return tuple(found.values())


def networks_of(measured: Sequence[Measured], folder: str | Path = ".") -> Mapping[str, Network]:
    """{network as the CSV writes it: what its file says}. ValueError naming a file that is missing or bad."""
    found = {}
    for name in dict.fromkeys(one.network for one in measured):
        path = Path(folder) / name
        if not path.is_file():
            raise ValueError(f"no network {name!r} where the measurements lie ({folder})")
        try:
            found[name] = read_network(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return found


def _measured(cells: list[str], where: str) -> Measured:
    if len(cells) != len(HEADER):
        raise ValueError(f"{where}: needs {len(HEADER)} cells ({','.join(HEADER)}), has {len(cells)}")
    network, layer, text = cells
    try:
        ms = float(text)
    except ValueError as error:
        raise ValueError(f"{where}: ms must be a number, got {text!r}") from error
    if not network:
        raise ValueError(f"{where}: the network is empty")
    if not math.isfinite(ms) or ms <= 0:
        raise ValueError(f"{where}: ms must be above 0 and finite, got {text!r}")
    return Measured(network, layer, ms)
