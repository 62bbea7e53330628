"""What operators become: as many scheduled operations as the compiler makes, each of its kind."""

import pytest

from research.bench.recipes import Layer, make
from research.npu.chip import U55_128, U85_128, Chip
from research.npu.exact_groups import grouped
from research.npu.exact_lowering import steps_of
from research.npu.network import read_network

IMAGE = Layer("input", "image", like=(16, 16, 16))
FIRST = Layer("conv", "first", ("image",), width=24)


def _kinds(chip: Chip, *layers: Layer) -> list[str]:
    network = read_network(make((IMAGE, FIRST, *layers), 1).model)
    return [step.kind for step in grouped(steps_of(network, chip), chip)]


@pytest.mark.parametrize(
    ("layer", "u85", "u55"),
    [
        (Layer("mean", "last", ("first",)), ["DepthwiseConv2D"], ["DepthwiseConv2D", "Mul"]),
        (Layer("resize", "last", ("first",), mode="nearest"), ["Resize"], ["AvgPool"]),
        (Layer("transpose_conv", "last", ("first",), width=8, kernel=2, stride=2), ["Conv2D"] * 4, ["Conv2D"]),
        (Layer("logistic", "last", ("first",)), [], []),
        (Layer("concat", "last", ("first", "image")), ["MemoryCopy"], ["MemoryCopy"]),
    ],
    ids=lambda x: x.op if isinstance(x, Layer) else "",
)  # fmt: skip
def test_operators(layer: Layer, u85: list[str], u55: list[str]) -> None:
    assert sorted(_kinds(U85_128, layer)) == sorted(["Conv2D", *u85])
    assert sorted(_kinds(U55_128, layer)) == sorted(["Conv2D", *u55])


def test_a_pad_is_part_of_the_convolution_that_reads_it() -> None:
    pad = Layer("pad", "pad", ("first",), kernel=1)
    last = Layer("conv", "last", ("pad",), width=8, kernel=3, mode="VALID")
    assert _kinds(U85_128, pad, last) == ["Conv2D", "Conv2D"]
    pool = Layer("max_pool", "last", ("pad",), kernel=3, stride=2)
    assert _kinds(U85_128, pad, pool) == ["Conv2D", *["MemoryCopy"] * 4, "MaxPool"]
