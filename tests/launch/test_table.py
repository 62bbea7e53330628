"""Tables: the front against brute force, the same bytes from the same trials, and holes that stay holes."""

import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.store import LocalStore
from launch.table import csv_text, feasible, front, markdown, metrics_of, picture, rows_of, write_table

WANTED = {"ms": "min", "auc": "max"}
NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan, math.inf])
TRIALS = st.lists(st.fixed_dictionaries({}, optional={"ms": NUMBERS, "auc": NUMBERS}), max_size=12)


def by_brute_force(found: dict[int, dict[str, float]], bound: float) -> list[int]:
    """Every trial against every other, by the definition."""
    good = {
        n: (m["ms"], -m["auc"])
        for n, m in found.items()
        if all(math.isfinite(m.get(k, math.nan)) for k in WANTED) and m["ms"] <= bound
    }
    return [
        n
        for n, (x, y) in good.items()
        if not any((a <= x and b <= y) and (a < x or b < y) for a, b in good.values())
    ]


@given(trials=TRIALS, bound=st.sampled_from([0.0, 2.0, math.inf]))
def test_the_front_is_what_none_beats(trials: list[dict[str, float]], bound: float) -> None:
    found = dict(enumerate(trials))
    assert front(found, WANTED, {"ms": bound}) == by_brute_force(found, bound)
    backwards = dict(reversed(found.items()))
    assert front(backwards, WANTED, {"ms": bound}) == front(found, WANTED, {"ms": bound})


def test_without_objectives_there_is_no_front() -> None:
    assert front({0: {"ms": 1.0}}, {}) == []
    assert feasible({"ms": 1.0}, {})
    assert not feasible({}, {"ms": 1.0})


def test_metrics_are_the_numbers_of_the_last_row() -> None:
    rows = [{"ms": 9.0}, {"row": 3, "name": "x", "ms": 1.5, "macs": 7, "claim": None, "ok": True}]
    assert metrics_of({"rows": rows}) == {"ms": 1.5, "macs": 7}
    with pytest.raises(ValueError, match="has no rows"):
        metrics_of({})


def test_rows_are_in_the_order_of_the_trials() -> None:
    states = {2: "failed (1)", 0: "done", 1: "waiting"}
    points = {n: {"lr": n / 10} for n in states}
    text = csv_text(rows_of(states, points, {0: {"lr": 7.0, "ms": 1.5, "trial": 9}}))
    assert list(csv.reader(io.StringIO(text))) == [
        ["trial", "state", "lr", "ms"],
        ["0", "done", "0.0", "1.5"],
        ["1", "waiting", "0.1", ""],
        ["2", "failed", "0.2", ""],
    ]


def test_markdown_is_a_table_or_says_why_not() -> None:
    text = markdown([{"trial": 1, "ms": 1.23456, "head": "a|b", "x": None}], WANTED)
    assert text.splitlines()[2:] == [
        "| trial | ms | head | x |",
        "| --- | --- | --- | --- |",
        "| 1 | 1.235 | a\\|b |  |",
    ]
    assert "Wanted: ms (min), auc (max)" in text
    assert markdown([], {}).startswith("No trial is on the front")


def test_the_same_trials_give_the_same_bytes(tmp_path: Path) -> None:
    found = {n: {"ms": float(n), "auc": math.sin(n)} for n in range(9)}
    points = {n: {"lr": n * 0.1} for n in range(9)}
    states = dict.fromkeys(range(9), "done")
    kept = []
    for name, numbers in (("a", range(9)), ("b", reversed(range(9)))):
        store = LocalStore(str(tmp_path / name))
        order = list(numbers)
        write_table(store, {n: states[n] for n in order}, points, {n: found[n] for n in order}, WANTED)
        kept.append({path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())})
    assert list(kept[0]) == ["pareto.csv", "pareto.md", "pareto.png", "trials.csv"]
    assert kept[0] == kept[1]
    best = [int(row["trial"]) for row in csv.DictReader(io.StringIO(kept[0]["pareto.csv"].decode()))]
    assert best == front(found, WANTED)
    assert kept[0]["pareto.png"].startswith(b"\x89PNG")


def test_a_list_of_points_has_no_front_to_write(tmp_path: Path) -> None:
    write_table(LocalStore(str(tmp_path)), {0: "done"}, {0: {"lr": 1}}, {0: {"ms": 1.0}}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]
    write_table(LocalStore(str(tmp_path)), {0: "done"}, {0: {"lr": 1}}, {0: {"ms": 1.0}}, WANTED, drawn=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pareto.csv", "pareto.md", "trials.csv"]
    with pytest.raises(ValueError, match="two objectives"):
        picture({}, [], {"ms": "min"})
