"""A flatbuffer's tables, bounds-checked: an offset or a size that does not fit is one ValueError.

A table starts with a signed offset back to its vtable, which holds the offset of each field (0: absent). Reading
ends after work in proportion to the number of bytes, whatever they say. No dependency but numpy.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

MOST_VISITS = 2**22  # tables and entries of one file
MOST_COPIED = 2**26  # numbers that are copied: sparse constants made dense, metadata, custom options


def damaged(what: str) -> ValueError:
    """The error for bytes that no writer makes."""
    return ValueError(f"damaged .tflite: {what}; export it again")


class File:
    """The bytes, and how much may still be read of them."""

    def __init__(self, data: bytes) -> None:
        self.data, self.visits, self.copied = data, min(len(data), MOST_VISITS), MOST_COPIED

    def spend(self, visits: int = 0, copied: int = 0) -> None:
        """Accounts for work. ValueError where it is too much: hostile tables may all point at the same bytes."""
        self.visits, self.copied = self.visits - visits, self.copied - copied
        if self.visits < 0 or self.copied < 0:
            raise damaged(f"its tables hold far more than its {len(self.data)} bytes")

    def numbers(self, at: int, code: str) -> tuple[int, ...]:
        """Numbers at an address; code: of `struct`, little-endian. ValueError outside the file."""
        size = struct.calcsize("<" + code)
        if at < 0 or at + size > len(self.data):
            raise damaged(f"offset {at} outside {len(self.data)} bytes")
        return struct.unpack_from("<" + code, self.data, at)

    def root(self) -> Table:
        """The first table."""
        return self.table(self.numbers(0, "I")[0])

    def table(self, at: int) -> Table:
        """The table at an address. ValueError where it, its vtable or a field does not fit."""
        vtable = at - self.numbers(at, "i")[0]
        size, reach = self.numbers(vtable, "HH")
        if size < 4 or size % 2 or reach < 4 or at + reach > len(self.data):
            raise damaged(f"the table at {at} has {size} and {reach} bytes")
        fields = self.numbers(vtable + 4, f"{size // 2 - 2}H")
        self.spend(4 + len(fields))
        if any(field >= reach for field in fields):
            raise damaged(f"a field of the table at {at} lies outside of it")
        return Table(self, at, reach, fields)


class Table(NamedTuple):
    """A table inside the file; a field that is absent has its default."""

    file: File
    at: int
    reach: int
    fields: tuple[int, ...]

    def _offset(self, field: int, size: int) -> int:
        """Of a field in the table, 0 if absent."""
        offset = self.fields[field] if field < len(self.fields) else 0
        if offset and offset + size > self.reach:
            raise damaged(f"field {field} of the table at {self.at} does not fit into it")
        return offset

    def _follow(self, field: int) -> int:
        """Address that an offset field points to, 0 if absent."""
        offset = self._offset(field, 4)
        return self.at + offset + self.file.numbers(self.at + offset, "I")[0] if offset else 0

    def number(self, field: int, code: str = "i", default: float = 0) -> float:
        """A scalar; code: of `struct`."""
        offset = self._offset(field, struct.calcsize("<" + code))
        return self.file.numbers(self.at + offset, code)[0] if offset else default

    def integer(self, field: int, code: str = "i", default: int = 0) -> int:
        """A whole number."""
        return int(self.number(field, code, default))

    def vector(self, field: int, kind: str) -> np.ndarray:
        """Numbers of a vector, a view of the file; an absent one is empty. kind: a numpy dtype."""
        start, dtype = self._follow(field), np.dtype(kind)
        count = self.file.numbers(start, "I")[0] if start else 0
        if start + 4 + count * dtype.itemsize > len(self.file.data) + 4 * (not start):
            raise damaged(f"a vector of {count} items does not fit")
        self.file.spend(0 if kind == "u1" else count)
        return np.frombuffer(self.file.data, dtype, count, start + 4) if count else np.zeros(0, dtype)

    def text(self, field: int) -> str:
        """A string; what is no UTF-8 is replaced."""
        characters = self.copied(field)
        self.file.spend(len(characters))
        return characters.decode("utf-8", errors="replace")

    def copied(self, field: int) -> bytes:
        """A copy of a vector of bytes."""
        found = self.vector(field, "u1")
        self.file.spend(copied=found.size)
        return found.tobytes()

    def table(self, field: int) -> Table | None:
        """A table that this one points to."""
        at = self._follow(field)
        return self.file.table(at) if at else None

    def tables(self, field: int) -> list[Table]:
        """The tables that a vector points to."""
        offsets = self.vector(field, "<u4").tolist()
        first = self._follow(field) + 4
        return [self.file.table(first + 4 * i + offset) for i, offset in enumerate(offsets)]
