"""Which steps run inside another one, how tensors are laid out, and the `Operation` that each group becomes.

After `CanPack`, `EthosU85OpGroup`, `EthosU55OpGroup` and `UpdateSchedulerTensor` of ethos-u-vela 5.2.0.
"""

import dataclasses
from collections.abc import Sequence
from math import prod
from typing import Any

from research.npu.chip import Chip
from research.npu.exact_steps import ELEMENTWISE, HOST, POOLS, Area, Step, View
from research.npu.operation import ACTIVATIONS, FUSED, FeatureMap, Operation, Rider, Size, Where

_LONGEST, _MOST_INPUTS = 4, 3  # of a chain
_CLIPS = frozenset({"Relu", "Relu0To1", "Relu6", "ReluN1To1", "Clamp"})
_CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2D"})
_PLAIN55 = frozenset({"MatMul", "Transpose"})  # whose tensors are NHWC
_HALF_RATE = frozenset({"NWHC", "NWCH", "NCWH"})


def grouped(steps: Sequence[Step], chip: Chip, *, grouping: bool = True) -> list[Step]:
    """The steps that lead a group, with those that ride on them as `riders`; in the order of execution."""
    found = list[Step]()
    for step in steps:
        if not (found and found[-1].kind != HOST and _rides(found[-1], step, chip, grouping)):
            found.append(step)
    return found


def _rides(first: Step, step: Step, chip: Chip, grouping: bool) -> bool:
    """Appends a step to a group where it can run inside it."""
    before = first.riders[-1] if first.riders else first
    area = before.ofm.area
    views = [v for v in reversed(step.inputs) if v.area is area]
    if not views or step.kind == HOST or (not grouping and step.kind in ELEMENTWISE):
        return False
    view = views[0]
    if len(area.makers) != 1 or len(area.readers) != 1 or area.result or first.ofm.area.result:
        return False
    if before.ofm.seen != before.ofm.shape or view.seen != view.shape or view.at != before.ofm.at:
        return False
    reshaped = before.ofm.shape != view.shape
    bound = first.kind in _CONVOLUTIONS or before.kernel != (1, 1) or before.stride != (1, 1)
    if reshaped and (bound or step.ofm.seen != step.ofm.shape or step.transpose != "NHWC"):
        return False
    if step.scaled or not (_rides85 if chip.family == "u85" else _rides55)(first, before, step):
        return False
    first.riders.append(step)
    return True


def _rides55(first: Step, before: Step, step: Step) -> bool:
    compound = first.kind == "MatMul" or (first.kind == "Transpose" and first.ofm.area.bits != 8)
    return not first.riders and step.kind in ACTIVATIONS and first.kind not in ACTIVATIONS and not compound


def _rides85(first: Step, before: Step, step: Step) -> bool:
    members = [first, *first.riders]
    turned = any(s.transpose != "NHWC" for s in members)
    chained = [s for s in first.riders if s.kind not in FUSED]
    if step.kind in FUSED:
        if chained and step.kind not in ACTIVATIONS:
            return False
        if step.kind in ACTIVATIONS and before.kind in ACTIVATIONS:
            return False
        if step.kind == "Transpose" and (turned or first.ofm.seen != first.ofm.shape):
            return False
        if step.kind == "Transpose" and first.kind in (*ELEMENTWISE, "Resize", "ReduceSum", "MatMul"):
            return False
        return not (step.kind in _CLIPS and before.ifm.area.bits > before.ofm.area.bits)
    outside = _external(step)
    if step.kind not in ELEMENTWISE or turned or first.kind == "Resize" or not outside:
        return False
    inputs = _external(first) + sum(_external(s) - 1 for s in chained)
    if len(chained) + 2 > _LONGEST or inputs + outside - 1 > _MOST_INPUTS:
        return False
    if first.kind in ("MemoryCopy", "Transpose") and first.ifm.area.bits >= 32:
        return False
    if before.ofm.seen != step.ofm.seen:
        return False
    base = first.ofm.seen
    if step.ifm2 is None:
        return prod(base) == prod(step.ifm.seen)
    own, other = (step.ifm, step.ifm2) if step.ifm.area is before.ofm.area else (step.ifm2, step.ifm)
    whole = prod(own.seen) == prod(base) and prod(other.seen) == 1
    return own.seen == other.seen or own.seen == base or whole


def _external(step: Step) -> int:
    """Inputs that are not numbers."""
    return sum(not (v.area.constant and prod(v.seen) == 1) for v in step.inputs)


def lay_out(groups: Sequence[Step], chip: Chip) -> None:
    """Marks the areas that are NHWC (UpdateSchedulerTensor)."""
    reads: dict[Area, list[tuple[Step, View]]] = {}
    writes: dict[Area, list[tuple[Step, View]]] = {}
    for first in groups:
        base = first.ofm.shape
        hidden = inner(first)
        for step in (first, *first.riders):
            for view in step.inputs:
                if view.area not in hidden:
                    own = base if step is not first and prod(view.shape) == prod(base) else view.shape
                    reads.setdefault(view.area, []).append((step, dataclasses.replace(view, shape=own)))
            if step.ofm.area not in hidden:
                own = base if step is not first and step.transpose == "NHWC" else step.ofm.shape
                own = own if prod(own) == prod(step.ofm.shape) else step.ofm.shape
                writes.setdefault(step.ofm.area, []).append((step, dataclasses.replace(step.ofm, shape=own)))
    for area in {**reads, **writes}:
        readers, makers = reads.get(area, []), writes.get(area, [])
        touching = [*makers, *readers]
        seen = {v.seen[1:] for _, v in readers}
        area.linear |= area.constant or area.given or area.result
        area.linear |= any(s.kind == HOST or v.at[2] % 16 for s, v in touching)
        area.linear |= any(s.spread != 1 for s, _ in makers)
        area.linear |= any(seen and seen != {v.shape[1:]} for _, v in touching)
        area.linear |= area.bits == 32 and any(s.kind == "ReduceSum" for s, _ in readers)
        area.linear |= chip.family == "u55" and any(s.kind in _PLAIN55 for s, _ in touching)


def inner(first: Step) -> set[Area]:
    """Areas between the steps of a group: they are never in memory."""
    members = [first, *first.riders]
    return {step.ofm.area for step in members[:-1]}


def _map(view: View, bits: int | None = None, shape: Size | None = None) -> FeatureMap:
    area = view.area
    return FeatureMap(shape or view.seen, bits or area.bits, not area.linear, area.memory)


def operation_of(first: Step) -> Operation:
    """A group as one operation."""
    members, hidden = [first, *first.riders], inner(first)
    base = first.ofm.seen
    stored = first
    for step in first.riders:
        if step.kind not in FUSED:
            break
        stored = step
    riders = []
    for step in first.riders:
        others = [v for v in step.inputs if v.area not in hidden]
        other = None
        if others:
            whole = prod(others[0].seen) == prod(base)
            other = _map(others[0], shape=base if whole else None)
        shape = step.ofm.seen if step.kind == "Transpose" else base
        before = members[members.index(step) - 1]
        riders.append(
            Rider(
                step.kind, _map(step.ofm, shape=shape if prod(shape) == prod(step.ofm.seen) else None),
                before.ofm.area.bits, other, step.ofm.area not in hidden, step.transpose in _HALF_RATE,
                step.ofm.shape if step.kind in ACTIVATIONS and step.ofm.part else None,
            )
        )
    where: Where | None = None if first.scratch is None else first.scratch.memory
    own = dataclasses.replace(first.ofm, area=stored.ofm.area)
    turned = next((s.transpose for s in members if s.transpose != "NHWC"), "NHWC")
    fields: dict[str, Any] = {"upscale": first.upscale, "scale": first.scale, "transpose": turned}
    second = None if first.ifm2 is None else _map(first.ifm2)
    return Operation(
        first.name, first.kind, _map(first.ifm), _map(own, first.ofm.area.bits), second,
        first.kernel, first.stride, first.dilation, riders=tuple(riders), weights=first.weights, scratch=where,
        written=first.ofm.area not in hidden, lut=any(s.kind == "LUT" for s in members), **fields,
    )  # fmt: skip


def in_place(first: Step) -> Area | None:
    """The input whose memory the output of a group takes over, None: none (ReusableIFM)."""
    made = first.last.area
    alike = first.kind in ELEMENTWISE | ACTIVATIONS | {"Quantize", "MemoryCopy", "Transpose"}
    alike |= first.kind in POOLS and first.kernel == (1, 1)
    turned = any(s.transpose != "NHWC" for s in (first, *first.riders))
    if not alike or turned or len(made.makers) != 1:
        return None
    for view in first.inputs:
        area = view.area
        same = (area.shape, area.bits, area.linear, area.memory) == (made.shape, made.bits, made.linear, made.memory)
        if same and len(area.readers) == 1 and not area.result and not area.constant:
            return area
    return None
