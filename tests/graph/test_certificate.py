"""Certificates hold on random graphs, and a wrong rewrite breaks them."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.graph import certificate
from research.graph.certificate import CERTIFICATES, SHARED, examine, examine_integers
from research.graph.folding import fold_scale_after
from research.graph.ir import Node
from research.graph.matching import Answer, Change, Pattern, View
from research.graph.patterns import fuse_pool_activation
from research.graph.rewrite import PATTERNS


def test_every_pattern_has_a_certificate() -> None:
    assert list(CERTIFICATES) == [p.name for p in PATTERNS]
    assert all(c.integers == SHARED or c.integers.startswith("none") for c in CERTIFICATES.values())


@settings(max_examples=12)
@given(st.integers(0, 10**6))
def test_float_claims_hold(seed: int) -> None:
    for name, evidence in examine(seed).items():
        assert evidence.error <= evidence.allowed, name
        assert evidence.uses == 1 or evidence.error == 0


@settings(max_examples=12)
@given(st.integers(0, 10**6))
def test_integers_are_equal_where_it_is_claimed(seed: int) -> None:
    for name, evidence in examine_integers(seed).items():
        assert CERTIFICATES[name].integers == SHARED
        assert evidence.compared > 0
        assert evidence.differing == 0, name


def too_large(view: View, node: Node) -> Answer:
    """A fold with a kernel that is off by a thousandth."""
    answer = fold_scale_after(view, node)
    if not isinstance(answer, Change):
        return answer
    return answer._replace(weights={path: w * 1.001 for path, w in answer.weights.items()})


def too_low(view: View, node: Node) -> Answer:
    """A pool that takes any activation for a relu6."""
    answer = fuse_pool_activation(view, node)
    if not isinstance(answer, Change):
        return answer
    return answer._replace(nodes=(replace(answer.nodes[0], activation="relu6"),))


def test_a_wrong_fold_breaks_its_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = next(p for p in PATTERNS if p.name == "fold_scale_after")
    too_large.__name__ = "fold_scale_after"
    monkeypatch.setattr(certificate, "PATTERNS", (rule._replace(rule=too_large),))
    found = [e for seed in range(24) if (e := examine(seed)["fold_scale_after"]).uses]
    assert sum(e.error > 100 * e.allowed for e in found) >= 2  # a layer that nobody reads shows nothing


def test_a_wrong_activation_breaks_its_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    too_low.__name__ = "fuse_pool_activation"
    monkeypatch.setattr(certificate, "PATTERNS", (Pattern(too_low, 9, ("clamp",)),))
    found = [e for seed in range(12) for e in examine_integers(seed).values()]
    assert sum(e.differing for e in found) > 0
