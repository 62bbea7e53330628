"""A missed bar is named; what meets every bar is not."""

from typing import Any

from research.bench.throughput import BARS, missed, rate


def figures() -> dict[str, Any]:
    modes = {mode: {"per_s": 2 * bar} for mode, bar in BARS.items()}
    return {**modes, "mape_percent": 1.0, "tau": 0.99, "tables_gap": 0.0, "compiles": {"arbitrary": 1}}


def test_every_missed_bar_is_named() -> None:
    assert missed(figures()) == []
    slow = figures()
    slow["tables"]["per_s"] = 1.0
    assert missed(slow) == ["tables: 1 a second, bar 1,000,000"]
    assert missed(figures() | {"mape_percent": 6.5}) == ["MAPE 6.50 %"]
    assert missed(figures() | {"compiles": {"arbitrary": 2}}) == ["arbitrary: 2 compiles"]


def test_a_rate_counts_every_call() -> None:
    calls = []
    wall, cpu = rate(lambda: calls.append(0) or 0, 10)
    assert len(calls) > 10
    assert wall > 0
    assert cpu > 0
