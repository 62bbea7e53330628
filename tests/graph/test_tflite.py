"""The flatbuffer: written bytes can be read, damaged bytes are refused."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.tflite import IDENTIFIER, Writer, parse, read_metadata, schema, text


def relu_model(metadata: dict[str, str]) -> bytes:
    writer = Writer("one relu")
    x = writer.tensor("x", (1, 3), np.int8, 0.5, -4)
    y = writer.tensor("y", (1, 3), np.int8, 0.25, 7)
    writer.operator("RELU", 2, [x], y, None, {})
    return writer.finish([x], [y], metadata)


MODEL = relu_model({"b": "2", "a": '{"naïve": 1}'})


def test_what_is_written_is_read() -> None:
    parsed = parse(MODEL)
    tensors = parsed.subgraphs[0].tensors
    assert [text(t.name) for t in tensors] == ["x", "y"]
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
    assert len(parse(writer.finish([x], [z], {})).operatorCodes) == 1


def test_a_field_that_the_schema_lacks_is_refused() -> None:
    writer = Writer("typo")
    x = writer.tensor("x", (1, 3), np.int8, 0.5)
    with pytest.raises(ValueError, match="AddOptions has no field 'activation'"):
        writer.operator("ADD", 2, [x, x], x, "AddOptions", {"activation": 1})


@pytest.mark.parametrize("junk", [b"", b"TFL3", b"\0" * 64, MODEL[4:], b"\x50\x4b\x03\x04TFL2" + MODEL[8:]])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match="not a TFLite model"):
        parse(junk)


@given(st.integers(8, len(MODEL) - 1))
def test_a_cut_file_is_refused_or_whole(length: int) -> None:
    try:
        parsed = parse(MODEL[:length])
    except ValueError:
        return
    assert len(parsed.subgraphs) == 1


def test_the_optional_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.schema_py_generated", None)
    with pytest.raises(ModuleNotFoundError, match=r"ai-edge-litert: pip install '\.\[npu\]'"):
        Writer("nothing")
