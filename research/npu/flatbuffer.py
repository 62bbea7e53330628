"""Reads just enough of a .tflite file to trust it and to name its operators; no dependency.

A flatbuffer table starts with a signed offset back to its vtable; the vtable holds the offset of each field
(0: absent). Field numbers below are those of TensorFlow Lite's schema.fbs, version 3.
"""

import struct

_MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS, _BUFFER_DATA = 1, 2, 4, 0
_SUBGRAPH_TENSORS, _SUBGRAPH_OPERATORS = 0, 3
_TENSOR_SHAPE, _TENSOR_NAME, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 3, 1, 2
_MIN_BYTES = 32


class _Reader:
    """Bounds-checked look-ups in one flatbuffer; every offset outside the file raises ValueError."""

    def __init__(self, model: bytes) -> None:
        self.model = model

    def number(self, at: int, code: str) -> int:
        size = struct.calcsize(code)
        if at < 0 or at + size > len(self.model):
            raise ValueError(f"damaged .tflite: offset {at} outside {len(self.model)} bytes; export it again")
        return int(struct.unpack_from(code, self.model, at)[0])

    def follow(self, at: int) -> int:
        return at + self.number(at, "<I")

    def field(self, table: int, index: int) -> int | None:
        vtable = table - self.number(table, "<i")
        if 4 + 2 * index >= self.number(vtable, "<H"):
            return None
        offset = self.number(vtable + 4 + 2 * index, "<H")
        return table + offset if offset else None

    def vector(self, table: int, index: int, item_bytes: int) -> tuple[int, int]:
        """(address of the first item, number of items); an absent vector is empty."""
        at = self.field(table, index)
        if at is None:
            return 0, 0
        start = self.follow(at)
        count = self.number(start, "<I")
        if start + 4 + count * item_bytes > len(self.model):
            raise ValueError(f"damaged .tflite: a vector of {count} items does not fit; export it again")
        return start + 4, count

    def tables(self, table: int, index: int) -> list[int]:
        first, count = self.vector(table, index, 4)
        return [self.follow(first + 4 * i) for i in range(count)]


def operator_names(model: bytes) -> tuple[str, ...]:
    """Name of the first output tensor of every operator of the first subgraph, in file order.

    Raises:
      TypeError: `model` is not bytes.
      ValueError: not a TensorFlow Lite flatbuffer, empty, or cut short.
    """
    if not isinstance(model, bytes | bytearray):
        raise TypeError(f"model must be the bytes of a .tflite file, got {type(model).__name__}")
    if len(model) < _MIN_BYTES or model[4:8] != b"TFL3":
        raise ValueError(f"not a .tflite file ({len(model)} bytes, no TFL3 mark): pass the exporter's bytes")
    reader = _Reader(bytes(model))
    root = reader.follow(0)
    for code in reader.tables(root, _MODEL_CODES):
        reader.field(code, 0)
    for buffer in reader.tables(root, _MODEL_BUFFERS):
        reader.vector(buffer, _BUFFER_DATA, 1)
    subgraphs = reader.tables(root, _MODEL_SUBGRAPHS)
    if not subgraphs:
        raise ValueError("damaged .tflite: no subgraph; export it again")
    names = []
    for tensor in reader.tables(subgraphs[0], _SUBGRAPH_TENSORS):
        start, count = reader.vector(tensor, _TENSOR_NAME, 1)
        names.append(model[start : start + count].decode("utf-8", errors="replace"))
        first, rank = reader.vector(tensor, _TENSOR_SHAPE, 4)
        if any(reader.number(first + 4 * axis, "<i") < 0 for axis in range(rank)):
            raise ValueError(
                f"tensor {names[-1]!r} has an unknown dimension: fix the batch size before export"
            )
    outputs: list[str] = []
    for operator in reader.tables(subgraphs[0], _SUBGRAPH_OPERATORS):
        reader.vector(operator, _OPERATOR_INPUTS, 4)
        start, count = reader.vector(operator, _OPERATOR_OUTPUTS, 4)
        index = reader.number(start, "<i") if count else -1
        if not 0 <= index < len(names):
            raise ValueError(
                f"damaged .tflite: operator {len(outputs)} has no output tensor; export it again"
            )
        outputs.append(names[index])
    if not outputs:
        raise ValueError("the .tflite file has no operator: nothing to price")
    return tuple(outputs)
