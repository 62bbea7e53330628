"""The flatbuffer: the schema's own reader and ours find what was written; damaged bytes are refused."""

import sys

import numpy as np
import pytest

from research.graph.flat import unpack
from research.graph.tflite import IDENTIFIER, Writer, read_metadata, schema


def relu_model(metadata: dict[str, str]) -> bytes:
    writer = Writer("one relu")
    x = writer.tensor("x", (1, 3), np.int8, 0.5, -4)
    y = writer.tensor("y", (1, 3), np.int8, 0.25, 7)
    writer.operator("RELU", 2, [x], y, None, {})
    return writer.finish([x], [y], metadata)


MODEL = relu_model({"b": "2", "a": '{"naïve": 1}'})


def test_what_is_written_is_read() -> None:
    parsed = schema().ModelT.InitFromPackedBuf(bytearray(MODEL), 0)
    tensors = parsed.subgraphs[0].tensors
    assert [t.name for t in tensors] == [b"x", b"y"]
    assert [float(t.quantization.scale[0]) for t in tensors] == [0.5, 0.25]
    assert [int(t.quantization.zeroPoint[0]) for t in tensors] == [-4, 7]
    assert tensors[0].type == schema().TensorType.INT8
    assert parsed.operatorCodes[0].builtinCode == schema().BuiltinOperator.RELU
    assert MODEL[4:8] == IDENTIFIER


def test_metadata_comes_back_and_its_order_does_not_matter() -> None:
    assert read_metadata(MODEL) == {"a": '{"naïve": 1}', "b": "2"}
    assert relu_model({"a": '{"naïve": 1}', "b": "2"}) == MODEL
    assert relu_model({}) != MODEL
    assert read_metadata(relu_model({})) == {}


def test_operators_of_one_kind_share_a_code() -> None:
    writer = Writer("two relus")
    x, y, z = (writer.tensor(n, (1, 3), np.int8, 0.5) for n in "xyz")
    writer.operator("RELU", 2, [x], y, None, {})
    writer.operator("RELU", 2, [y], z, None, {})
    assert schema().Model.GetRootAs(writer.finish([x], [z], {})).OperatorCodesLength() == 1


def per_channel(tensors: int) -> bytes:
    writer = Writer("channels")
    x = writer.tensor("x", (1, 300), np.int8, 0.5)
    for i in range(tensors):
        writer.tensor(f"w{i}", (300, 1), np.int8, np.linspace(i + 1, i + 2, 300), data=np.full((300, 1), i))
    return writer.finish([x], [x], {})


def test_equal_zero_points_are_written_once() -> None:
    more = len(per_channel(3)) - len(per_channel(2))
    assert 300 * (4 + 1) < more < 300 * (4 + 1) + 300  # scales and data
    found = unpack(per_channel(3)).tensors
    assert all((tensor.quantisation.zero_point == np.zeros(300)).all() for tensor in found[1:])
    assert found[2].quantisation.scale[0] == 2.0


def test_equal_data_is_kept_once_and_starts_at_a_multiple_of_16() -> None:
    writer, data = Writer("constants"), np.arange(7, dtype=np.int16)
    x = writer.tensor("x", (1, 7), np.int16, 0.5)
    for name, value in (("a", data), ("b", data), ("c", data[:3]), ("d", data[1:2])):
        writer.tensor(name, value.shape, np.int16, 0.5, data=value)
    model = writer.finish([x], [x], {"note": "hello"})
    root = schema().Model.GetRootAs(model)
    buffers = [root.Subgraphs(0).Tensors(i).Buffer() for i in range(5)]
    assert buffers[1] == buffers[2] != buffers[3]
    np.testing.assert_array_equal(unpack(model).tensors[2].data, data)
    tables = [root.Buffers(i)._tab for i in range(1, root.BuffersLength())]
    assert len(tables) == 4
    assert [t.Vector(t.Offset(4)) % 16 for t in tables] == [0] * 4


def test_a_field_that_the_schema_lacks_is_refused() -> None:
    writer = Writer("typo")
    x = writer.tensor("x", (1, 3), np.int8, 0.5)
    with pytest.raises(ValueError, match="AddOptions has no field 'activation'"):
        writer.operator("ADD", 2, [x, x], x, "AddOptions", {"activation": 1})


@pytest.mark.parametrize("junk", [b"", b"TFL3", b"\0" * 64, MODEL[4:], MODEL[: len(MODEL) // 2]])
def test_junk_has_no_metadata(junk: bytes) -> None:
    with pytest.raises(ValueError, match=r"\.tflite"):
        read_metadata(junk)


def test_the_optional_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.schema_py_generated", None)
    with pytest.raises(ModuleNotFoundError, match=r"ai-edge-litert: pip install '\.\[npu\]'"):
        Writer("nothing")
