"""StableHLO: the same numbers after serialising, for any batch, on the platforms asked for."""

import jax
import numpy as np
import pytest

from research.graph.exact import compile_exact
from research.graph.interpret import interpret_float
from research.graph.ir import Graph, Node, Tensor
from research.graph.program import Program
from research.graph.rewrite import fuse
from research.graph.runtime import run_raw
from research.graph.stablehlo import export_stablehlo, load_stablehlo
from research.graph.trace import trace
from research.graph.write import write
from tests.graph.cases import CASES, in_integers, program_of, real_values
from tests.graph.samples import inverted_residual


def test_a_float_network_gives_the_same_numbers_for_any_batch() -> None:
    net = inverted_residual()
    graph = fuse(trace(net.fn, net.params, net.image))[0]
    run = load_stablehlo(export_stablehlo(graph, net.params))
    for count in (1, 5):
        images = net.images(count)
        (got,) = run(images)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, interpret_float(graph, net.params, images), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(got, compile_exact(Program(graph, net.params))(images)[0])


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("name", ["conv", "softmax", "mean", "add"])
def test_integers_stay_those_of_the_runtime(name: str, dtype: str) -> None:
    program, inputs = program_of(CASES[name])
    integer = in_integers(program, real_values(program, inputs), dtype)
    x = [integer.scales[n].quantise(inputs[n]) for n in integer.graph.inputs]
    (got,) = load_stablehlo(export_stablehlo(integer))(*x)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, run_raw(write(integer), x)[0])


def test_a_constant_joins_every_image_of_the_batch() -> None:
    nodes = (
        Node("constant", (), "c", kernel="c", kernel_shape=(1, 2, 3)),
        Node("concat", ("x", "c"), "y", axis=1),
    )
    tensors = (Tensor("c", (1, 2, 3)), Tensor("x", (1, 4, 3)), Tensor("y", (1, 6, 3)))
    program = Program(Graph(nodes, tensors, ("x",), ("y",)), {"c": np.ones((1, 2, 3), np.float32)})
    x = np.zeros((5, 4, 3), np.float32)
    (got,) = load_stablehlo(export_stablehlo(program))(x)
    np.testing.assert_array_equal(got, np.concatenate([x, np.ones((5, 2, 3))], 1))


def test_a_fixed_batch_and_platform_are_kept() -> None:
    program, inputs = program_of(CASES["dense"])
    data = export_stablehlo(program, platforms=("tpu",), batch=3)
    exported = jax.export.deserialize(bytearray(data))
    assert (exported.platforms, exported.in_avals[0].shape) == (("tpu",), (3, 12))
    assert "stablehlo.dot_general" in exported.mlir_module()
    with pytest.raises(ValueError, match="tpu"):
        load_stablehlo(data)(inputs["x0"])
    run = load_stablehlo(export_stablehlo(program, batch=3))
    assert run(inputs["x0"])[0].shape == (3, 5)
    with pytest.raises(ValueError, match="shape"):
        run(inputs["x0"][:2])


def test_missing_weights_are_named() -> None:
    program, _ = program_of(CASES["dense"])
    with pytest.raises(ValueError, match="parameter 'w/kernel', which was not given"):
        export_stablehlo(program.graph)
