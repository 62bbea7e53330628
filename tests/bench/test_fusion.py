"""The fusion bench: its bars, its judgement of evidence, and the comparison on a small network."""

import pytest

from research.bench import fusion
from research.graph.certificate import Evidence
from research.nets import Block, HandNet


def test_evidence_counts_only_where_the_pattern_was_used_and_claims_were_checked() -> None:
    unused, fine = Evidence(()), Evidence((), 1, 1e-8, 1e-7)
    compared = fine._replace(error=0.0, allowed=0.0, compared=10)
    assert fusion.holds("fold_scale_after", [unused, fine])
    assert not fusion.holds("fold_scale_after", [unused])
    assert not fusion.holds("fold_scale_after", [fine._replace(error=2e-7)])
    assert not fusion.holds("fuse_pad", [fine])  # claims bit-equality, which nothing showed
    assert fusion.holds("fuse_pad", [compared])
    assert not fusion.holds("fuse_pad", [compared._replace(differing=1)])


@pytest.mark.parametrize(
    ("count", "broken", "differing", "ratio", "missed"),
    [(20, 0, 0, 2.0, 0), (20, 1, 0, 2.0, 1), (10, 0, 0, 2.0, 1), (20, 0, 3, 2.0, 1), (20, 0, 0, 1.8, 1)],
)
def test_every_bar_can_be_missed(count: int, broken: int, differing: int, ratio: float, missed: int) -> None:
    held = {f"p{i}": i >= broken for i in range(count)}
    assert len(fusion.failures(held, differing, ratio)) == missed


def test_random_orders_give_one_graph() -> None:
    assert fusion.orders_differing(3, tries=2) == 0


def test_a_small_network_is_cheaper_fused_and_every_pattern_is_worth_something() -> None:
    traced = fusion.network(HandNet(16, 8, (Block(16, 8),), 8))
    found = fusion.compare(*traced, rounds=1)
    assert found["ratio_written"] > found["ratio"] > found["ratio_grouped"] > 1
    assert found["cpu_fused_ms"] > 0
    worth = fusion.bought(*traced)
    assert worth["fuse_activation"]["uses"] == 4
    assert all(row["nodes"] >= 0 for row in worth.values())
    assert worth["fold_scale_after"]["referee"] > 0
