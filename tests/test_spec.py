"""Experiments as data: overrides by type, JSON there and back, floats apart from what is compiled."""

import dataclasses as dc
import inspect
import json
import typing
from pathlib import Path
from typing import Any

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research import spec as module
from research.data.scene import Look
from research.nets import Block, HandNet
from research.npu import U85_128, Chip
from research.spec import (
    Experiment,
    Named,
    Optim,
    Stage,
    Track,
    config_module,
    differences,
    from_json,
    join_floats,
    load,
    named,
    override,
    parse_override,
    split_floats,
    to_json,
)
from research.squeeze import NM, Distill, FakeQuant, WidthGates
from tests.experiments import EXPERIMENT as EXP
from tests.experiments import moved_floats, parts

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "v2.py"
CONFIGS = sorted(CONFIG.parent.glob("*.py"))


# Named


def test_named_is_an_ordered_immutable_mapping() -> None:
    here = named(b=1, a=2)
    assert (here.names, list(here), len(here), here["a"]) == (("b", "a"), ["b", "a"], 2, 2)
    assert here.replace("b", 3) == named(b=3, a=2)
    assert here == named(b=1, a=2) != named(a=2, b=1)
    assert hash(here) == hash(named(b=1, a=2))
    assert len(Named()) == 0


def test_only_keeps_our_order() -> None:
    here = named(gates=1, sparse=2, distill=3)
    assert here.only(["distill", "gates"]).names == ("gates", "distill")
    assert here.only([]) == Named()


@pytest.mark.parametrize(
    "call", [lambda n: n["sparce"], lambda n: n.only(["sparce"]), lambda n: n.replace("sparce", 1)]
)
def test_an_unknown_name_is_guessed(call: Any) -> None:
    with pytest.raises(KeyError, match="did you mean 'sparse'"):
        call(named(gates=1, sparse=2))


# Overrides


HAPPY: list[tuple[str, Any, Any]] = [
    ("seed", 3, lambda e: e.seed),
    ("optim.lr", 0.5, lambda e: e.optim.lr),
    ("squeeze.sparse.n", 1, lambda e: e.squeeze["sparse"].n),
    ("squeeze.sparse.where", ("neck/kernel",), lambda e: e.squeeze["sparse"].where),
    ("squeeze.distill.pairs", (("a", "b"),), lambda e: e.squeeze["distill"].pairs),
    ("squeeze.distill.pairs", (), lambda e: e.squeeze["distill"].pairs),
    ("squeeze.distill.pairs.1", ("a", "b"), lambda e: e.squeeze["distill"].pairs[1]),
    ("squeeze.distill.pairs.1.0", "a", lambda e: e.squeeze["distill"].pairs[1][0]),
    ("tracks.v2.stages.1.steps", 7, lambda e: e.tracks["v2"].stages[1].steps),
    ("tracks.v2.stages.squeeze.steps", 7, lambda e: e.tracks["v2"].stages[1].steps),
    ("tracks.v2.stages.finish.settle", ("gates",), lambda e: e.tracks["v2"].stages[2].settle),
    ("tracks.v1.net.blocks.1.kernel", 5, lambda e: e.tracks["v1"].net.blocks[1].kernel),
    ("tracks.v1.net.norm", False, lambda e: e.tracks["v1"].net.norm),
    ("data.look.fill", (0.25, 1.0), lambda e: e.data.look.fill),
    ("new_chip.sram.read_latency_cycles", 9.0, lambda e: e.new_chip.sram.read_latency_cycles),
    ("claims.gates", "2x", lambda e: e.claims["gates"]),
    ("tracks.v2.teacher", "", lambda e: e.tracks["v2"].teacher),
]


@pytest.mark.parametrize(("path", "value", "read"), HAPPY)
def test_an_override_changes_its_field_only(path: str, value: Any, read: Any) -> None:
    changed = override(EXP, path, value)
    assert read(changed) == value != read(EXP)
    assert type(changed) is Experiment
    assert override(changed, path, read(EXP)) == EXP


def test_an_override_leaves_the_rest_alone() -> None:
    changed = override(EXP, "tracks.v2.stages.squeeze.steps", 7)
    (only,) = differences(to_json(EXP), to_json(changed))
    assert only == "tracks.items.2.1.stages.1.steps: 150 -> 7"
    assert override(EXP, "tracks.v2.stages.1.steps", 7) == changed


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("sed", "override 'sed': Experiment has no such field; did you mean 'seed'"),
        ("optim.lrr", "override 'optim.lrr': Optim has no such field; did you mean 'lr'"),
        ("squeeze.sparce.n", "override 'squeeze.sparce': no such name; did you mean 'sparse'"),
        ("squeeze.sparce", "did you mean 'sparse'"),
        ("squeeze.sparse.qqq", "known: n, m, decay, where"),
        ("tracks.v2.stages.sqeeze.steps", "no such entry; did you mean 'squeeze'"),
        ("tracks.v2.stages.3.steps", "known: dense, squeeze, finish"),
        ("tracks.v2.stages.-1.steps", "no such entry"),
        ("tracks.v2.stages.²", "no such entry"),
        ("tracks.v1.net.blocks.9.mid", "known: 0, 1, 2"),
        ("optim.lr.x", "optim.lr is a plain value and has no fields"),
        ("claims.gates.x", "claims.gates is a plain value"),
        ("", "no such field"),
        ("optim..lr", "override 'optim.'"),
    ],
)
def test_an_unknown_path_is_named_and_guessed(path: str, says: str) -> None:
    with pytest.raises(KeyError) as error:
        override(EXP, path, 1)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("seed", 1.0, "override 'seed': 1.0 is not of type int"),
        ("seed", True, "True is not of type int"),
        ("seed", "1", "'1' is not of type int"),
        ("optim.lr", "fast", "'fast' is not of type float"),
        ("optim.lr", True, "True is not of type float"),
        ("optim.lr", None, "None is not of type float"),
        ("name", 3, "3 is not of type str"),
        ("tracks.v1.net.norm", 1, "1 is not of type bool"),
        ("squeeze.sparse.where", "neck/kernel", "'neck/kernel' is not of type tuple"),
        ("squeeze.sparse.where", (1,), "1 is not of type str"),
        ("squeeze.distill.pairs", (("a", "b", "c"),), "('a', 'b', 'c') is not of type tuple"),
        ("squeeze.distill.pairs.0", "a", "'a' is not of type tuple"),
        ("data.look.fill", (0.1,), "(0.1,) is not of type tuple"),
        ("tracks.v2.stages.dense", 3, "name a field of it, such as tracks.v2.stages.dense.name"),
        ("squeeze.sparse", 3, "name a field of it, such as squeeze.sparse.n"),
        ("squeeze", 3, "name a field of it, such as squeeze.gates"),
        ("data", 3, "name a field of it, such as data.size_px"),
        ("optim", None, "name a field of it, such as optim.batch"),
        ("claims.gates", 2, "2 is not of type str"),
    ],
)
def test_a_value_of_another_type_is_refused(path: str, value: Any, says: str) -> None:
    with pytest.raises(TypeError) as error:
        override(EXP, path, value)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_what_networks_compute_in_is_one_of_two() -> None:
    assert override(EXP, "optim.compute", "bfloat16").optim.compute == "bfloat16"
    with pytest.raises(ValueError, match=r"optim\.compute='float16' must be one of float32, bfloat16"):
        override(EXP, "optim.compute", "float16")


def test_an_int_becomes_a_float_where_a_float_belongs() -> None:
    lr = override(EXP, "optim.lr", 1).optim.lr
    assert type(lr) is float
    fill = override(EXP, "data.look.fill", [0, 1]).data.look.fill
    assert [type(v) for v in fill] == [float, float]


@dc.dataclass(frozen=True)
class Choice:
    """Fields of several types, as a user's own spec may have them."""

    limit: float | None = None
    mixed: tuple[int, ...] | str = "all"
    empty: tuple[tuple[()], ...] = ()


def test_unions_take_each_of_their_types() -> None:
    assert override(Choice(), "limit", 2) == Choice(limit=2.0)
    assert override(Choice(limit=2.0), "limit", None) == Choice()
    assert override(Choice(), "mixed", (1, 2)) == Choice(mixed=(1, 2))
    assert override(Choice(), "empty", ((), ())) == Choice(empty=((), ()))
    with pytest.raises(TypeError, match=r"'x' is not of type float \| None"):
        override(Choice(), "limit", "x")
    with pytest.raises(TypeError, match="is not of type"):
        override(Choice(), "mixed", (1, "x"))


def test_every_field_of_every_spec_accepts_its_own_value() -> None:
    for part in parts(EXP):
        for field in dc.fields(part) if not isinstance(part, Named) else ():
            value = getattr(part, field.name)
            if not any(dc.is_dataclass(v) for v in (value if isinstance(value, tuple) else (value,))):
                assert override(part, field.name, value) == part
            assert field.name in typing.get_type_hints(type(part))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=1e-3", ("a.b", 1e-3)),
        ("a = 3", ("a", 3)),
        ("a=True", ("a", True)),
        ("a=('x', 'y')", ("a", ("x", "y"))),
        ("a=plain text", ("a", "plain text")),
        ("a=x=y", ("a", "x=y")),
        ("a='3'", ("a", "3")),
        ("a=", ("a", "")),
        ("a=b0/*", ("a", "b0/*")),
        ("a=None", ("a", None)),
    ],
)
def test_parse_override(text: str, expected: tuple[str, Any]) -> None:
    key, value = parse_override(text)
    assert (key, value) == expected
    assert type(value) is type(expected[1])


@pytest.mark.parametrize("text", ["a.b", "=3", ""])
def test_parse_override_needs_a_field_and_a_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"not of the form field\.field=value"):
        parse_override(text)


# Loading


def test_load_applies_overrides_in_order() -> None:
    exp = load(str(CONFIG), ["seed=1", "squeeze.sparse.m = 8", "seed=2", "name=other"])
    assert (exp.seed, exp.squeeze["sparse"].m, exp.name) == (2, 8, "other")
    assert load(CONFIG) == config_module(CONFIG).config()


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (None, FileNotFoundError, "no config file"),
        ("x = 1", ValueError, r"defines no config\(\)"),
        ("def config():\n    return 3", ValueError, "returned int, not an Experiment"),
    ],
)
def test_load_says_what_is_wrong_with_a_file(
    tmp_path: Path, text: str | None, error: type, says: str
) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=says):
        load(path)


def test_load_refuses_what_is_no_python_file(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("hello")
    with pytest.raises(ValueError, match="not a Python file"):
        load(tmp_path / "mine.txt")
    with pytest.raises(FileNotFoundError, match="no config file"):
        load(tmp_path)
    with pytest.raises(ValueError, match="not of the form"):
        load(CONFIG, ["seed"])


def test_two_configs_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for folder, answer in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text(f"def config():\n    return {answer}\n")
    first, second = (config_module(tmp_path / folder / "x.py") for folder in "ab")
    assert (first.config(), second.config()) == (1, 2)


# JSON


@pytest.mark.parametrize("exp", [EXP, EXP.smoke(), moved_floats(EXP), *map(load, CONFIGS)])
def test_json_there_and_back(exp: Experiment) -> None:
    text = json.dumps(to_json(exp))
    back = from_json(json.loads(text))
    assert back == exp
    assert hash(back) == hash(exp)
    assert json.dumps(to_json(back)) == text


def test_the_round_trip_covers_every_spec_class() -> None:
    seen = {type(part) for part in parts(EXP)}
    specs = {kind for _, kind in inspect.getmembers(module, dc.is_dataclass)}
    assert seen >= specs | {NM, Distill, WidthGates, FakeQuant, HandNet, Block, Chip, Look}
    assert specs == {Experiment, Named, Optim, Stage, Track}


@pytest.mark.parametrize(
    "kind",
    [
        "os:system",
        "pathlib:Path",
        "research.spec:Path",  # imported there, not a spec
        "research.spec:dc.dataclass",
        "research.spec:nowhere",
        "research.nowhere:Named",
        "research.spec:load",
        "research.spec:",
        "research:load",
        "researchers.spec:Named",
        "research.squeeze:NM",  # lives in research.squeeze.sparsity
        "",
        None,
        3,
    ],
)
def test_from_json_builds_our_specs_only(kind: Any) -> None:
    with pytest.raises(ValueError, match="not a spec of this project"):
        from_json({"$type": kind, "n": 2})
    with pytest.raises(ValueError, match="not a spec of this project"):
        from_json([1, {"n": 2}])


def test_from_json_names_a_field_that_is_gone() -> None:
    with pytest.raises(ValueError, match="Stage has no field 'step'; did you mean 'steps'"):
        from_json(to_json(Stage("a", 1)) | {"step": 2})


@pytest.mark.parametrize("value", [{1: 2}, object(), Stage, {3}, 1j])
def test_to_json_refuses_what_is_no_spec(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be part of a spec"):
        to_json(Track(net=value, stages=()))


def test_differences_names_paths_and_both_values() -> None:
    changed = override(override(EXP, "optim.lr", 0.5), "squeeze.sparse.where", ("neck/kernel",))
    found = differences(to_json(EXP), to_json(changed))
    assert len(found) == 2
    assert found[1] == "optim.lr: 0.004 -> 0.5"
    assert found[0].startswith("squeeze.items.1.1.where: [")
    assert len(found[0]) < 160
    assert differences(to_json(EXP), to_json(EXP)) == []
    assert differences({"a": 1}, {"b": 2}) == ["a: 1 -> null", "b: null -> 2"]
    assert differences([1, 2], [1, 3]) == [".1: 2 -> 3"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a: [1] -> [1, 2]"]


# Floats apart


@given(st.lists(st.floats(allow_nan=False), min_size=200, max_size=200))
def test_join_is_the_inverse_of_split(values: list[float]) -> None:
    static, floats = split_floats(EXP)
    assert join_floats(static, floats) == EXP
    assert split_floats(static) == (static, (0.0,) * len(floats))
    other = join_floats(static, values)
    assert split_floats(other) == (static, tuple(values[: len(floats)]))


def test_only_what_is_no_float_is_compiled() -> None:
    static, floats = split_floats(EXP)
    moved, other = split_floats(moved_floats(EXP))
    assert moved == static
    assert hash(moved) == hash(static)
    assert len(floats) == len(other) > 20
    assert all(a != b for a, b in zip(floats, other, strict=True))
    for path, value in (
        ("squeeze.sparse.n", 1),
        ("optim.batch", 3),
        ("name", "x"),
        ("tracks.v1.net.norm", False),
    ):
        assert split_floats(override(EXP, path, value))[0] != static
        assert split_floats(override(EXP, path, value))[1] == floats


def test_floats_may_be_traced() -> None:
    static, floats = split_floats(named(sparse=NM(decay=0.25)))
    found = jax.jit(lambda values: 2.0 * join_floats(static, values)["sparse"].decay)(floats)
    assert float(found) == 0.5


# Smoke


def test_smoke_shrinks_everything_to_one_shape() -> None:
    small = EXP.smoke()
    assert {t.net for _, t in small.tracks.items} == {EXP.tracks["v1"].net.smoke()}
    assert {s.steps for _, t in small.tracks.items for s in t.stages} == {4}
    assert small.data.size_px == small.tracks["v1"].net.size_px == 32
    assert (small.optim.batch, small.save_every, small.calibration_images) == (8, 2, 16)
    assert small.smoke() == small
    for old, new in ((EXP, small), (EXP.optim, small.optim)):
        kept = {"name", "seed", "claims", "baseline", "target", "new_chip", "lr", "clip"}
        for field in kept & {f.name for f in dc.fields(old)}:
            assert getattr(old, field) == getattr(new, field)
    assert [s.links for s in small.tracks["v2"].stages] == [s.links for s in EXP.tracks["v2"].stages]
    assert small.squeeze.names == EXP.squeeze.names
    assert small.new_chip == U85_128
