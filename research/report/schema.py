"""What a `result.json` holds, as types, and the check that a mapping really holds it.

The types below are the only description of the file: `check_result` walks them. Further fields are allowed.
Units are in the names. `error_px` is the mean distance over keypoints in pixels of the network's input.
"""

import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypedDict

Number = float | None
KEYPOINTS = 21


class Energy(TypedDict):
    """Constants of the energy model: `scale` is set once on V1 and multiplies the switching energy."""

    scale: Number
    p_static_mw: Number
    note: str


class Row(TypedDict):
    """One line of the table: a network (`arm`) on a chip, compared with the line named by `baseline`."""

    row: int
    name: str
    technique: str
    baseline: str
    arm: str
    chip: str
    ms_simulated: Number
    ms_referee: Number
    step_x: Number
    cumulative_x: Number
    leave_one_out_x: Number
    leave_one_out_error_px: Number
    mj: Number
    kb_encoded: Number
    sram_kb: Number
    macs: Number
    params: Number
    error_px_float: Number
    error_px_int8: Number
    error_box_int8: Number
    claim: str


class Train(TypedDict):
    """Curves of one training: three lists of one length."""

    step: list[float]
    error_px: list[Number]
    loss: list[Number]


class Layer(TypedDict):
    """One layer on one chip; `note` says why it is not 2:4 (empty when it is)."""

    name: str
    op: str
    cycles_simulated: Number
    cycles_referee: Number
    weight_format: str
    note: str


class Entry(TypedDict):
    """One line of the ledger: a stage that was trained or a rewrite that was applied."""

    kind: str
    name: str
    detail: dict[str, Any]


class Stage(TypedDict):
    """Where latency and error stood at the end of one stage."""

    stage: str
    ms_simulated: Number
    error_px: Number


class Arm(TypedDict):
    """One trained network and its history; `layers` by chip name."""

    train: Train
    layers: dict[str, list[Layer]]
    ledger: list[Entry]
    stages: list[Stage]


class Hand(TypedDict):
    """One test crop (PNG, base64) with [21, 2] keypoints in 0..1 of the crop: true, by V1 and by V2."""

    image_png_base64: str
    true: list[list[float]]
    v1: list[list[float]]
    v2: list[list[float]]


class Result(TypedDict):
    """A whole result file. `n` is the number of seeds; 1 means a demo."""

    name: str
    n: int
    demo: bool
    command: str
    created: str
    versions: dict[str, Any]
    device: str
    energy: Energy
    rows: list[Row]
    arms: dict[str, Arm]
    gallery: list[Hand]


def check_result(result: Mapping[str, Any]) -> Result:
    """`result` itself, typed, once everything the report reads is found to be there.

    Raises ValueError naming the first field that is missing, has the wrong type or disagrees with another.
    """
    _check(result, Result, "")
    checked = typing.cast(Result, result)
    if not checked["rows"]:
        raise ValueError("result: rows is empty; a table needs at least row 0")
    if checked["n"] < 1:
        raise ValueError(f"result: n is {checked['n']}; it counts seeds and is at least 1")
    for i, row in enumerate(checked["rows"]):
        if row["arm"] not in checked["arms"]:
            raise ValueError(f"result: rows[{i}].arm is {row['arm']!r}; arms has {sorted(checked['arms'])}")
    for name, arm in checked["arms"].items():
        lengths = {key: len(arm["train"][key]) for key in ("step", "error_px", "loss")}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"result: arms.{name}.train has lists of different lengths {lengths}")
    for i, hand in enumerate(checked["gallery"]):
        for key in ("true", "v1", "v2"):
            points = hand[key]
            if len(points) != KEYPOINTS or any(len(point) != 2 for point in points):
                raise ValueError(f"result: gallery[{i}].{key} must be {KEYPOINTS} pairs [x, y]")
    return checked


def _check(value: object, kind: Any, path: str) -> None:
    """Compares `value` with the type `kind` (TypedDict, list, dict, union or plain type) and descends."""
    where = f"result: {path}" if path else "result"
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return
    if typing.is_typeddict(kind):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be an object, not {_named(value)}")
        for field, field_kind in typing.get_type_hints(kind).items():
            inside = f"{path}.{field}" if path else field
            if field not in value:
                raise ValueError(f"result: {inside} is missing (write null where a number is not known)")
            _check(value[field], field_kind, inside)
    elif origin is list:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, not {_named(value)}")
        for i, item in enumerate(value):
            _check(item, inner[0], f"{path}[{i}]")
    elif origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be an object, not {_named(value)}")
        for key, item in value.items():
            _check(item, inner[1], f"{path}.{key}")
    elif origin is types.UnionType:
        if value is not None:
            _check(value, inner[0], path)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where} must be a number, not {_named(value)}")
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}; write null where a number is not known")
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where} must be {kind.__name__}, not {_named(value)}")


def _named(value: object) -> str:
    """The type of a JSON value in words."""
    return "null" if value is None else type(value).__name__
