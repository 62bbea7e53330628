"""The tables name what the schema knows, and versions follow the number format."""

from typing import get_args

import numpy as np
import pytest

from research.graph.ir import Op
from research.graph.operators import (
    CODES,
    VERSIONS,
    operator_code,
    operator_options,
    operator_version,
    sums_in_int32,
)
from research.graph.tflite import schema
from tests.graph.cases import CASES, Case, in_integers, program_of, real_values


def test_every_name_is_one_of_the_schema() -> None:
    assert [code for code in VERSIONS if not hasattr(schema().BuiltinOperator, code)] == []
    assert {code for code in VERSIONS if operator_options(code) is None} == {
        "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "SQRT", "RSQRT",
    }  # fmt: skip
    assert set(CODES.values()) < set(VERSIONS)
    assert set(get_args(Op)) - set(CODES) == {"constant", "clamp", "pad", "resize", "quantize"}


def test_the_cases_use_every_operator_but_the_conversions() -> None:
    used = {operator_code(p, p.graph.nodes[-1]) for p in (program_of(case)[0] for case in CASES.values())}
    assert set(VERSIONS) - used == {"QUANTIZE", "DEQUANTIZE"}


@pytest.mark.parametrize(
    ("dtype", "bias", "version"), [("int8", "", 3), ("int16", "", 4), ("int16", "int32", 8)]
)
def test_a_convolution_has_the_version_of_its_types(dtype: str, bias: str, version: int) -> None:
    program, inputs = program_of(CASES["conv"])
    node = program.graph.nodes[-1]
    assert operator_version(program, node) == 1
    assert not sums_in_int32(program, node)
    integer = in_integers(program, real_values(program, inputs), dtype, bias)
    assert operator_version(integer, node) == version
    assert sums_in_int32(integer, node) == (bias == "int32")


def test_bounds_that_are_no_activation_have_no_operator() -> None:
    program, _ = program_of(Case({"op": "clamp", "bounds": (-1.0, np.inf)}))
    with pytest.raises(KeyError):
        operator_code(program, program.graph.nodes[-1])
