"""A graph in the operations that the compiler schedules, before they are grouped: `Step` over `Area` of memory."""

import dataclasses
from math import prod

from research.npu.operation import ACTIVATIONS, Size, Weights, Where

ELEMENTWISE = frozenset({
    "Add", "Sub", "Mul", "Div", "Minimum", "Maximum", "SHL", "Asr", "Abs", "CLZ", "LeakyRelu",
})  # fmt: skip
POOLS = frozenset({"MaxPool", "AvgPool", "ReduceSum"})
HOST = "Host"  # left to the CPU
_DEEP, _SHALLOW, _SMALL = 16, 8, 16


@dataclasses.dataclass(eq=False)
class Area:
    """A tensor in memory, compared by identity; `makers` in the order in which the compiler holds them."""

    name: str
    shape: Size
    bits: int = 8
    constant: bool = False
    given: bool = False  # a graph input
    result: bool = False  # a graph output
    linear: bool = False  # NHWC, else bricks of 16 channels
    memory: Where = "sram"
    makers: "list[Step]" = dataclasses.field(default_factory=list)
    readers: "list[Step]" = dataclasses.field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes, a multiple of 16."""
        h, w, c = self.shape
        channels = c if self.linear else -(-c // 16) * 16
        return -(-h * w * channels * self.bits // 128) * 16


@dataclasses.dataclass(frozen=True)
class View:
    """An area as one step sees it: in this shape, or a part of it that begins at `at`."""

    area: Area
    shape: Size
    part: Size | None = None
    at: Size = (0, 0, 0)

    @property
    def seen(self) -> Size:
        """The shape of the part."""
        return self.part or self.shape


@dataclasses.dataclass(eq=False)
class Step:
    """An operation as it is scheduled; fields as in `Operation`. `riders` run inside it once steps are grouped."""

    name: str
    kind: str
    ifm: View
    ofm: View
    ifm2: View | None = None
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    upscale: str = "none"
    scale: tuple[int, int] = (1, 1)
    transpose: str = "NHWC"
    spread: int = 1  # step between the columns that it writes
    weights: Weights | None = None
    scratch: Area | None = None
    table_bytes: int = 0  # of a look-up
    scaled: bool = False  # an activation that changes the scale: it cannot be fused
    riders: "list[Step]" = dataclasses.field(default_factory=list)

    @property
    def inputs(self) -> tuple[View, ...]:
        """One or two."""
        return (self.ifm,) if self.ifm2 is None else (self.ifm, self.ifm2)

    @property
    def last(self) -> View:
        """The output of the last rider, else its own."""
        return self.riders[-1].ofm if self.riders else self.ofm


def deepen(step: Step) -> None:
    """Gives a shallow element-wise step at least 16 channels, where all its tensors are alike (ConvertOperation)."""
    if step.kind not in ELEMENTWISE | ACTIVATIONS | {"Quantize", "MemoryCopy"}:
        return
    views = [v for v in (*step.inputs, step.ofm) if prod(v.shape) > 1]
    alike = all(v.shape == views[0].shape and v.part is None for v in views)
    if alike and prod(step.ofm.shape) > _SMALL and step.ofm.shape[2] < _SHALLOW:
        shape = deeper(step.ofm.shape)

        def as_deep(view: View) -> View:
            return dataclasses.replace(view, shape=shape) if prod(view.shape) > 1 else view

        step.ifm, step.ofm = as_deep(step.ifm), as_deep(step.ofm)
        step.ifm2 = as_deep(step.ifm2) if step.ifm2 is not None else None


def deeper(shape: Size) -> Size:
    """As many elements with at least 16 channels, if their factors allow it (ReshapeToIncreaseDepth)."""
    factors, rest, factor = list[int](), prod(shape), 2
    while factor * factor <= rest:
        while rest % factor == 0:
            factors.append(factor)
            rest //= factor
        factor += 1
    factors += [rest] * (rest > 1)
    depth = height = width = 1
    for each in factors:
        if depth < _DEEP:
            depth *= each
        elif width < height:
            width *= each
        else:
            height *= each
    return max(height, width), min(height, width), depth


def in_order(results: list[Area]) -> list[Step]:
    """Every step after those it reads from, in the order of the compiler (TraverseGraphFromEnd)."""
    stack = [(False, step) for area in results for step in area.makers]
    seen, found = set[int](), list[Step]()
    while stack:
        done, step = stack.pop()
        if done:
            found.append(step)
        elif id(step) not in seen:
            seen.add(id(step))
            stack.append((True, step))
            stack += [(False, maker) for view in step.inputs for maker in view.area.makers if id(maker) not in seen]
    return found
