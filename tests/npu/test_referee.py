"""The referee is deterministic, silent, checked in its arguments, and safe with files from elsewhere."""

import sys

import flatbuffers
import pytest

from research.graph.tflite import schema
from research.npu.chip import U55_128, U85_128
from research.npu.referee import DISABLE, check_disable, referee_foreign
from research.npu.referee import referee as judge
from tests.npu.networks import hand_network


def test_same_file_same_verdict() -> None:
    model = hand_network(0, True).model
    assert judge(model, U85_128) == judge(model, U85_128)


def test_the_compiler_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    judge(hand_network(0, False).model, U55_128)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("feature", ["Sparsity", "Grouping", "WeightBuffering"])
def test_every_ablation_costs_time(feature: str) -> None:
    model = hand_network(0, True).model
    assert judge(model, U85_128, (feature,)).ms > judge(model, U85_128).ms


def test_ablations_combine() -> None:
    model = hand_network(0, True).model
    both = judge(model, U85_128, ("Sparsity", "WeightBuffering"))
    assert both.ms > max(judge(model, U85_128, (one,)).ms for one in ("Sparsity", "WeightBuffering"))
    assert all(layer.weight_format != "Sparse2_4" for layer in both.layers)
    assert check_disable(DISABLE) == DISABLE


def test_an_unknown_feature_is_not_ignored() -> None:
    model = hand_network(0, False).model
    with pytest.raises(ValueError, match="did you mean 'Sparsity'"):
        judge(model, U85_128, ("sparsity",))
    with pytest.raises(ValueError, match="there are Sparsity, Grouping"):
        judge(model, U85_128, ("Cascading",))
    with pytest.raises(ValueError, match="tuple of names"):
        check_disable("Sparsity")


def test_junk_is_refused_before_the_compiler_sees_it() -> None:
    model = hand_network(0, False).model
    for damaged in (b"", model[: len(model) // 2], b"x" * 5000):
        with pytest.raises(ValueError, match=r"\.tflite"):
            judge(damaged, U85_128)
        with pytest.raises(ValueError, match=r"\.tflite"):
            referee_foreign(damaged, U85_128)


def test_a_foreign_file_is_judged_the_same() -> None:
    model = hand_network(0, False).model
    assert referee_foreign(model, U85_128) == judge(model, U85_128)


def test_a_file_that_kills_the_compiler_raises_here() -> None:
    """A stride of zero passes the structural check; native code then divides by it."""
    parsed = schema().ModelT.InitFromPackedBuf(bytearray(hand_network(0, False).model), 0)
    parsed.subgraphs[0].operators[0].builtinOptions.strideW = 0
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    with pytest.raises(ValueError, match="compiler died on this file"):
        referee_foreign(bytes(builder.Output()), U85_128)


def test_a_slow_answer_is_given_up() -> None:
    with pytest.raises(TimeoutError, match="raise timeout_s"):
        referee_foreign(hand_network(0, False).model, U85_128, timeout_s=0.0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ethosu", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[npu\]'"):
        judge(hand_network(0, False).model, U85_128)
