"""Random graphs are sound, the same for a seed, and hold every pattern."""

from collections import Counter

import numpy as np
import pytest

from research.graph.integer import quantise
from research.graph.matching import Change, View
from research.graph.rewrite import PATTERNS
from research.graph.tangles import IMAGE, tangle
from research.graph.weights import weights_of


def test_a_seed_names_one_graph() -> None:
    assert tangle(3).hash == tangle(3).hash
    assert len({tangle(seed).hash for seed in range(20)}) == 20
    assert tangle(0).shape("image") == IMAGE


def test_longer_tangles_have_more_nodes() -> None:
    assert np.mean([len(tangle(s, 30).nodes) for s in range(10)]) > np.mean(
        [len(tangle(s, 10).nodes) for s in range(10)]
    )


def test_every_pattern_fits_somewhere_and_most_refuse_somewhere() -> None:
    fits, refuses = Counter[str](), Counter[str]()
    for seed in range(60):
        graph = tangle(seed)
        view = View(graph, weights_of(graph, {}).arrays)
        for pattern in PATTERNS:
            answers = [pattern.answer(view, node) for node in graph.nodes]
            fits[pattern.name] += sum(isinstance(a, Change) for a in answers)
            refuses[pattern.name] += sum(isinstance(a, str) for a in answers)
    assert set(+fits) == {p.name for p in PATTERNS}
    assert len(+refuses) >= 10


@pytest.mark.parametrize("seed", range(5))
def test_integer_tangles_quantise_to_one_scale(seed: int) -> None:
    graph = tangle(seed, integers=True)
    constants = {n.output for n in graph.nodes if n.op == "constant"}
    program = quantise(graph, {}, {t.name: (-2.0, 2.0) for t in graph.tensors if t.name not in constants})
    images = [t.name for t in program.graph.tensors if t.shape == IMAGE and t.name not in constants]
    assert len({program.scales[name] for name in images}) == 1
