"""Tables and vectors as the flatbuffers library writes them; nothing outside the bytes is ever read."""

from __future__ import annotations

import struct

import flatbuffers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.flatbuffer import File, Table


def written(number: int, real: float, text: str, values: list[int]) -> bytes:
    """A table with an int, a float, a string, a vector, an absent field and a table with a byte."""
    builder = flatbuffers.Builder(16)
    builder.StartObject(1)
    builder.PrependInt8Slot(0, 7, 0)
    inner = builder.EndObject()
    held = builder.CreateString(text)
    numbers = builder.CreateNumpyVector(np.asarray(values, np.int32))
    builder.StartObject(6)
    builder.PrependInt32Slot(0, number, 0)
    builder.PrependFloat32Slot(1, real, 0.0)
    builder.PrependUOffsetTRelativeSlot(2, held, 0)
    builder.PrependUOffsetTRelativeSlot(3, numbers, 0)
    builder.PrependUOffsetTRelativeSlot(5, inner, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def contents(root: Table) -> tuple[object, ...]:
    inner = root.table(5)
    byte = None if inner is None else inner.integer(0, "b")
    return (
        root.integer(0),
        root.number(1, "f"),
        root.text(2),
        root.vector(3, "<i4").tolist(),
        root.table(4),
        byte,
    )


numbers = st.integers(-(2**31), 2**31 - 1)


@given(numbers, st.floats(width=32, allow_nan=False), st.text(max_size=9), st.lists(numbers, max_size=9))
def test_what_is_written_is_read(number: int, real: float, text: str, values: list[int]) -> None:
    root = File(written(number, real, text, values)).root()
    assert contents(root) == (number, real, text, values, None, 7)
    assert (root.integer(99, default=5), root.text(99), root.tables(99)) == (5, "", [])


SOUND = written(1, 2.0, "three", [4, 5, 6])


@given(
    st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=4), st.integers(0, 99)
)
def test_damage_is_one_error_or_other_contents(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(SOUND)
    for at, value in changes:
        data[at] = value
    data = data[: max(len(data) - cut, 0)] if cut < 50 else data
    try:
        found = contents(File(bytes(data)).root())
    except ValueError as error:
        found = (str(error),)
    assert len(found) == 6 or str(found[0]).startswith("damaged .tflite: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "offset 0 outside 0 bytes"),
        (struct.pack("<I", 4), "offset 4 outside 4 bytes"),
        (struct.pack("<Ii", 4, 8), "offset -4 outside 8 bytes"),
        (struct.pack("<IiHH", 4, -4, 3, 4), "the table at 4 has 3 and 4 bytes"),
        (struct.pack("<IiHH", 4, -4, 4, 99), "the table at 4 has 4 and 99 bytes"),
        (struct.pack("<IiHHH", 4, -4, 6, 4, 4), "a field of the table at 4 lies outside"),
        (struct.pack("<IiHHH", 4, -4, 400, 4, 4), "offset 12 outside 14 bytes"),
    ],
)
def test_tables_that_do_not_fit_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        File(data).root()


def test_fields_and_vectors_that_do_not_fit_are_refused() -> None:
    field = File(struct.pack("<IiHHH", 4, -4, 6, 8, 6) + b"\0" * 8).root()
    with pytest.raises(ValueError, match="field 0 of the table at 4 does not fit"):
        field.integer(0)
    vector = struct.pack("<IiIHHHI", 4, -8, 10, 6, 8, 4, 2**30) + b"\0" * 64
    with pytest.raises(ValueError, match="a vector of 1073741824 items does not fit"):
        File(vector).root().vector(0, "<i4")


def test_work_is_bounded_by_the_number_of_bytes() -> None:
    file = File(bytes(100))
    file.spend(100)
    with pytest.raises(ValueError, match="hold far more than its 100 bytes"):
        file.spend(1)
