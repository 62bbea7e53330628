"""The networks of the bench: a seed is a set, ranges and kinds are as stated, edits change one thing."""

from collections import Counter

import numpy as np
import pytest

from research.bench import population
from research.bench.recipes import Recipe, make, skeleton
from research.graph.ir import Node

# {kind: smallest and largest channels, rows or elements in} of the set that the design was made with.
DESIGN_CHANNELS = {
    "conv": (1, 320),
    "depthwise": (8, 320),
    "dense": (32, 976),
    "add": (8, 304),
    "mul": (8, 304),
}


def layer_of(recipe: Recipe) -> tuple[Node, tuple[int, ...], tuple[int, ...]]:
    graph = skeleton(recipe)
    node = graph.node_of("layer")
    return node, graph.shape(node.inputs[0]), graph.shape("layer")


def test_a_seed_is_a_set() -> None:
    one, again, other = (population.networks(seed, 3) for seed in (21, 21, 22))
    assert one == again
    assert one != other
    assert one == population.networks(21, 5)[:3]  # a larger set begins with the smaller one


def test_networks_lie_in_the_stated_ranges_and_every_kind_is_in_a_tenth() -> None:
    found = population.networks(21, 60)
    counted = Counter[str]()
    sizes, depths, channels = set[int](), list[int](), list[int]()
    for recipe, _, spread in found:
        graph = skeleton(recipe)
        assert 3e6 <= graph.total_macs <= 150e6
        assert 16 <= spread <= 48
        bits = {layer.bits for layer in recipe}
        counted.update({node.op for node in graph.nodes} | ({"quantize"} if len(bits) > 1 else set()))
        sizes.add(recipe[0].like[0])
        depths.append(len(recipe))
        channels += [graph.shape(node.output)[-1] for node in graph.nodes]
    assert sizes == {64, 96, 112, 128, 160}
    assert min(depths) <= 15
    assert max(depths) >= 75
    assert min(channels) <= 8
    assert max(channels) >= 1000
    assert set(counted) == population.KINDS
    assert min(counted.values()) >= 6, counted


def test_layers_cover_the_ranges_of_the_design() -> None:
    channels: dict[str, list[int]] = {}
    rows, kinds, kernels = list[int](), Counter[str](), set[tuple[str, int]]()
    for seed in range(1500):
        recipe, kind, _ = population.random_layer(seed)
        node, source, target = layer_of(recipe)
        kinds[kind] += 1
        channels.setdefault(node.op, []).append(source[-1])
        rows += [source[1]] if len(source) == 4 else []
        kernels.add((node.op, (node.kernel_shape or node.window)[0]))
        assert min(target) > 0
    for op, (low, high) in DESIGN_CHANNELS.items():
        assert min(channels[op]) <= low, op
        assert max(channels[op]) >= 0.95 * high, op
    assert (min(rows), max(rows)) == (1, 128) or (min(rows) <= 4 and max(rows) == 128)
    assert {("conv", 1), ("conv", 3), ("conv", 5), ("depthwise", 3), ("depthwise", 5)} <= kernels
    assert {("max_pool", 2), ("max_pool", 3), ("avg_pool", 2), ("avg_pool", 3)} <= kernels
    assert len(kinds) == 17
    assert min(kinds.values()) >= 15


@pytest.mark.parametrize("kind", population.EDITS)
def test_an_edit_changes_one_layer_in_one_field_and_still_fits(kind: str) -> None:
    rng, changed = np.random.default_rng(0), 0
    for recipe, _, _ in population.networks(22, 6):
        edited = population.edit(recipe, kind, rng)
        if edited is None:
            continue
        changed += 1
        skeleton(edited)
        pairs = [(a, b) for a, b in zip(recipe, edited, strict=True) if a != b]
        assert len(pairs) == 1
        (old, new), field = pairs[0], {"2:4": "zeros", "int16": "bits", "kernel": "kernel"}.get(kind, "width")
        assert old.__dict__ | {field: getattr(new, field)} == new.__dict__
        steps = {"wider": 8, "narrower": -8}
        assert kind not in steps or new.width - old.width == steps[kind]
    assert changed >= 5


def test_kinds_name_the_meeting_of_two_formats() -> None:
    recipe, own, spread = next(x for x in population.networks(21, 30) if len({y.bits for y in x[0]}) > 1)
    made = make(recipe, own, spread)
    assert "quantize" in population.kinds(made)
    assert "conv" in population.kinds(made)
