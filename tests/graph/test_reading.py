"""The pieces a file is read with: names, formats, paths of weights, inputs that are left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.flat import Model, Operator, Quantisation, Tensor
from research.graph.program import Affine
from research.graph.reading import LAYOUTS, MOST_NUMBERS, Known, Reading, Step, affine
from research.graph.write import AXIS, file_layout


def reading(*names: str) -> Reading:
    """Of a file with these tensors: float32 [1, 2], made by nobody."""
    tensors = tuple(Tensor(n, (1, 2), "float32", None, None, (), False) for n in names)
    return Reading(Model(tensors, (), (), (), {}), names, set(names))


def step(r: Reading, *inputs: int) -> Step:
    return Step(r, Operator("ADD", "", inputs, (len(r.names) - 1,), None, b""))


def quantisation(scale: float = 0.5, zero: int = 0, count: int = 1) -> Quantisation:
    return Quantisation(np.full(count, scale, np.float32), np.full(count, zero, np.int64), 0)


@given(st.lists(st.sampled_from(["a", "a/1", "a/2", "b"]), max_size=8))
def test_fresh_names_are_new_every_time(asked: list[str]) -> None:
    r = reading("a", "a/2", "b")
    made = [r.fresh(name) for name in asked]
    assert len({*made, "a", "a/2", "b"}) == len(made) + 3


@pytest.mark.parametrize("op", LAYOUTS)
def test_layouts_undo_those_of_the_writer(op: str) -> None:
    shape = (3, 5) if op == "dense" else (2, 3, 1, 5) if op == "depthwise" else (2, 3, 4, 5)
    kernel = np.arange(np.prod(shape)).reshape(shape)
    axes, channels = LAYOUTS[op]
    np.testing.assert_array_equal(file_layout(op, kernel).transpose(axes), kernel)
    assert channels == AXIS.get(op, 0)
    assert file_layout(op, kernel).shape[channels] == 5


def test_an_integer_tensor_has_one_format() -> None:
    assert affine("t", "uint8", quantisation(0.5, 128)) == Affine(0.5, 128, "uint8")
    for dtype, given_ in (
        ("int32", quantisation()), ("float16", None), ("int8", None), ("int8", quantisation(count=3)),
        ("int8", quantisation(0.5, 128)), ("int16", quantisation(0.5, 1)), ("int8", quantisation(1e30)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"tensor 't' of the .tflite file is {dtype}"):
            affine("t", dtype, given_)


def test_a_weight_in_two_layouts_has_two_paths() -> None:
    r, data = reading("x"), np.ones((2, 3), np.float32)
    weight = Known("w", data)
    assert [r.path(weight, "plain", data) for _ in range(2)] == ["w", "w"]
    assert r.path(weight, "dense", data.T) == "w/dense/1"
    assert r.params["w"].shape, r.params["w/dense/1"].shape == ((2, 3), (3, 2))
    for wrong in (np.full((2, 3), np.inf, np.float32), np.ones((2, 3), np.int32)):
        with pytest.raises(ValueError, match=r"'v' is .* not float32, or not finite"):
            r.path(Known("v", wrong), "plain", wrong)


def test_work_on_weights_that_share_their_bytes_ends() -> None:
    r, held = reading("x"), np.broadcast_to(np.float32(1), (MOST_NUMBERS // 2,))
    r.spend(held)
    r.spend(held)
    with pytest.raises(ValueError, match="makes more than"):
        r.spend(held[:1])


def test_inputs_that_are_left_out_or_not_read_are_named() -> None:
    r = reading("x", "shape", "y")
    r.add_input(0)
    s = step(r, 0, 1, -1)
    assert (s.value(0), s.optional(2), s.optional(9)) == ("x", None, None)
    for position, message in (
        (1, "reads 'shape', float32 that no operation"),
        (2, "no input 2"),
        (9, "no input 9"),
    ):
        with pytest.raises(ValueError, match=message):
            s.value(position)
    with pytest.raises(ValueError, match="'x' is computed while the network runs"):
        s.constant(0)


def test_a_constant_gets_one_node() -> None:
    r = reading("x", "y")
    weight = Known("w", np.ones((1, 2), np.float32))
    assert [r.tensor(weight) for _ in range(2)] == ["w", "w"]
    assert [(n.op, n.kernel, n.output) for n in r.nodes] == [("constant", "w", "w")]
    whole = Known("q", np.ones((1, 2), np.int8), quantisation())
    assert r.tensor(whole) == "q"
    assert r.scales["q"] == Affine(0.5, 0)
    np.testing.assert_array_equal(r.integers["q"].kernel, whole.data)


def test_steps_on_the_way_have_names_and_formats_of_their_own() -> None:
    r = reading("x", "y")
    r.register("x", (1, 2), Affine(0.5, 3))
    s = step(r, 0)
    assert s.make("abs", ["x"], (1, 2), step=True) == "y/1"
    assert r.scales["y/1"] == Affine(0.5, 3)
    with pytest.raises(ValueError, match="it mixes int8 and float32"):
        s.make("abs", ["x"])
    with pytest.raises(ValueError, match=r"it makes \(1, 2\), the file says \(1, 3\)"):
        s.make("abs", ["x"], (1, 3), step=True)
    assert s.make("quantize", ["x"]) == "y"


def test_axes_are_counted_from_the_front() -> None:
    s = step(reading("x"), 0)
    assert s.axes([-1, 0], 4) == (3, 0)
    for wrong in ([4], [-5], [1, 1], [1, -3]):
        with pytest.raises(ValueError, match="are not those of a tensor of rank 4"):
            s.axes(wrong, 4)
