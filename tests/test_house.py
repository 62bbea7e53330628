"""The repository keeps the house rules, and each rule is shown to be able to fail."""

import json
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from research.report.readme import generated
from tests import house_rules as rules
from tests.conftest import NetworkUsed

ROOT = Path(__file__).resolve().parent.parent
PATHS = rules.repository_files(ROOT)
BYTES = {path: (ROOT / path).read_bytes() for path in PATHS}
TEXT = {path: content.decode() for path, content in BYTES.items() if b"\0" not in content[:8192]}
PYTHON = {path: text for path, text in TEXT.items() if path.endswith(".py")}
RESEARCH = {path: text for path, text in PYTHON.items() if path.startswith("research/")}
CONFIGS = {path: text for path, text in PYTHON.items() if path.startswith("configs/")}
PROJECT = tomllib.loads(TEXT["pyproject.toml"])

# Files of research/ without a test file of their own, and test files of no single file, each with the reason.
NOT_MIRRORED: dict[str, str] = {
    "tests/report/test_browser.py": "the whole report in a real browser",
}
# Files that may name a path of one machine, each with the reason.
MACHINE_PATHS_ALLOWED: dict[str, str] = {}

SIX = {"jax", "flax", "optax", "orbax-checkpoint", "chex", "tensorflow-datasets"}
WITHOUT_TENSORFLOW = {"array-record", "importlib-resources", "pillow"}


def clean(problems: list[str]) -> None:
    """Fail with one problem a line."""
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def clean_text(rule: Callable[[str], list[str]], texts: dict[str, str]) -> None:
    """Hold each text to a rule that needs no path."""
    clean([f"{path}: {problem}" for path, text in texts.items() for problem in rule(text)])


def clean_source(rule: Callable[[str, str], list[str]], sources: dict[str, str]) -> None:
    """Hold each source to a rule that needs its path."""
    clean([problem for path, source in sources.items() for problem in rule(source, path)])


# The repository


def test_top_level_is_exact() -> None:
    clean(rules.stray_top_level(PATHS))
    clean([f"{name}: missing" for name in sorted(rules.TOP_LEVEL - {path.split("/")[0] for path in PATHS})])


def test_names_and_depth() -> None:
    clean([problem for path in PATHS for problem in rules.bad_place(path)])


def test_lengths() -> None:
    clean(rules.bad_lengths({path: len(text.splitlines()) for path, text in PYTHON.items()}))
    clean(rules.too_much_code(RESEARCH))


def test_no_heavy_file() -> None:
    clean([f"{path}: {len(content)} bytes" for path, content in BYTES.items() if len(content) > 500_000])


def test_tests_mirror_research() -> None:
    clean(rules.unmirrored(RESEARCH, PATHS, NOT_MIRRORED) + rules.not_packages(PATHS))


def test_everything_public_is_documented() -> None:
    clean_text(rules.undocumented, RESEARCH)


def test_everything_public_is_annotated() -> None:
    clean_text(rules.unannotated, RESEARCH)


def test_guarded_libraries_have_one_door() -> None:
    watched = {path: text for path, text in PYTHON.items() if not path.startswith("tests/")}
    clean_source(rules.foreign_imports, watched)


def test_no_banned_api() -> None:
    clean_source(rules.banned_api, PYTHON)


def test_the_six_packages_serve_their_purpose() -> None:
    clean(rules.unserved(RESEARCH))


def test_no_silenced_test() -> None:
    clean_source(rules.silenced_tests, PYTHON)


def test_no_silenced_type_error() -> None:
    clean_text(rules.silenced_types, PYTHON)


def test_configs_are_runnable_pages() -> None:
    clean_text(rules.bad_config, CONFIGS)
    assert CONFIGS


def test_notebooks_are_short() -> None:
    clean_text(rules.bad_notebook, {p: text for p, text in TEXT.items() if p.endswith(".ipynb")})


def test_no_machine_path() -> None:
    clean_text(rules.machine_paths, {p: t for p, t in TEXT.items() if p not in MACHINE_PATHS_ALLOWED})
    assert set(MACHINE_PATHS_ALLOWED) <= set(TEXT)


def test_no_registry_host() -> None:
    clean_text(rules.registry_hosts, {p: t for p, t in TEXT.items() if p != "tests/house_rules.py"})


def test_nothing_unfinished() -> None:
    clean_text(rules.unfinished, TEXT)


def test_readme_tables_say_what_result_files_say() -> None:
    results = [ROOT / p for p in PATHS if p.startswith("configs/results/") and p.endswith(".json")]
    shown = [path for path in results if f"<!-- table:{path.stem} -->" in TEXT["README.md"]]
    assert generated(TEXT["README.md"], shown) == TEXT["README.md"]


def requirement_name(line: str) -> str:
    return re.split(r"[<>=!~;\[ ]", line)[0].lower().replace("_", "-").replace(".", "-")


def test_core_dependencies_are_the_six() -> None:
    core = {requirement_name(line) for line in PROJECT["project"]["dependencies"]}
    assert core == SIX | WITHOUT_TENSORFLOW


def test_constraints_are_exact_and_cover_every_dependency() -> None:
    lines = [line for line in TEXT["constraints.txt"].splitlines() if not line.startswith("#")]
    assert not [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!]+", line)]
    extras = PROJECT["project"]["optional-dependencies"].values()
    asked = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"], *chain(*extras)]
    assert {requirement_name(line) for line in asked} <= {requirement_name(line) for line in lines}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter import cli; raise SystemExit(cli.lint_imports(no_cache=True, no_logo=True))"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_imports_go_one_way() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


# Each rule can fail


SAMPLES: list[tuple[Callable[..., list[str]], tuple[object, ...], str]] = [
    (rules.stray_top_level, (["src/a.py", ".ci/run", "tests/a.py"],), "src"),
    (rules.bad_place, ("research/a/b/c/d.py",), "two folders"),
    (rules.bad_place, ("research/nets/conv_utils.py",), "'utils'"),
    (rules.bad_place, ("tests/helpers/a.py",), "'helpers'"),
    (rules.bad_lengths, ({"research/a.py": 401, "research/b.py": 1, "research/c.py": 1},), "401 lines"),
    (rules.bad_lengths, ({"research/a.py": 151, "research/b.py": 160, "research/__init__.py": 1},), "median"),
    (
        rules.too_much_code,
        ({"research/a.py": '"""Doc."""\n\n# why\n' + "x = 1\n" * 21_000},),
        "21000 lines of code",
    ),
    (rules.too_much_code, ({"research/graph/a.py": "x = 1\n" * 5500},), "research/graph/: 5500 lines"),
    (rules.unmirrored, ({"research/nets/a.py": "def f(): ..."}, [], {}), "no tests/nets/test_a.py"),
    (rules.unmirrored, ({"research/__init__.py": "def f(): ..."}, [], {}), "no tests/test_research.py"),
    (rules.unmirrored, ({"research/nets/a.py": ""}, ["tests/nets/test_b.py"], {}), "tests no file"),
    (rules.not_packages, (["tests/nets/test_a.py"],), "no __init__.py"),
    (rules.unmirrored, ({}, [], {"research/a.py": "why"}), "no longer"),
    (rules.undocumented, ("def f(): ...",), "module"),
    (rules.undocumented, ('"""Module."""\nclass A:\n    """A."""\n    def f(self): ...',), "A.f has no"),
    (rules.undocumented, ('"""Module."""\nif True:\n    def f(): ...',), "f has no"),
    (rules.unannotated, ("def f(x: int): ...",), "its result"),
    (rules.unannotated, ("class A:\n    def f(self, *x) -> int: ...",), "annotate x"),
    (rules.foreign_imports, ("from flax import linen as nn", "research/train/a.py"), "flax.linen"),
    (rules.foreign_imports, ("def f():\n    import ethosu.vela as v", "research/graph/a.py"), "ethosu"),
    (rules.foreign_imports, ("importlib.import_module('ai_edge_litert.x')", "research/npu/a.py"), "ai_edge"),
    (rules.foreign_imports, ("import configs.v2", "research/run.py"), "configs"),
    (rules.banned_api, ("import jax as j\nj.tree_map(f, x)", "research/a.py"), "jax.tree_map"),
    (rules.banned_api, ("from jax.experimental import pjit", "research/a.py"), "pjit"),
    (rules.banned_api, ("from flax.training.train_state import TrainState", "a.py"), "flax.training"),
    (rules.banned_api, ("jax.config.update('jax_enable_x64', True)", "research/a.py"), "x64"),
    (
        rules.silenced_tests,
        ("import pytest\n@pytest.mark.skipif(1)\ndef test(): ...", "tests/a.py"),
        "skipif",
    ),
    (rules.silenced_tests, ("from pytest import importorskip", "tests/a.py"), "importorskip"),
    (rules.unserved, ({"research/train/loop.py": "import optax"},), "chex.assert_max_traces"),
    (rules.silenced_types, ("x = 1  # type:" + " ignore[misc]",), "line 1"),
    (rules.bad_config, ('"""A."""\n' + "\n" * 60 + "def config(): ...",), "under 60"),
    (rules.bad_config, ("def config(): ...",), "docstring"),
    (rules.bad_config, ('"""A."""',), "config()"),
    (rules.bad_notebook, (json.dumps({"cells": [{}] * 12}),), "12 cells"),
    (rules.machine_paths, ("open('" + "/" + "root/a')",), "line 1"),
    (rules.registry_hosts, ("pip install --" + "index-url x",), "line 1"),
    (rules.registry_hosts, ("from py" + "pi.org",), "line 1"),
    (rules.unfinished, ("# TO" + "DO later",), "line 1"),
]


@pytest.mark.parametrize(("rule", "arguments", "says"), SAMPLES)
def test_rule_can_fail(rule: Callable[..., list[str]], arguments: tuple[object, ...], says: str) -> None:
    assert says in "; ".join(rule(*arguments))


CLEAN = '''"""Module."""
import jax
from flax import linen as nn

def f(x: jax.Array, *, y: int = 0) -> jax.Array:
    """Doc."""
    def inner(z): return z
    return jax.tree.map(inner, x)

class _Private:
    def g(self): ...
'''


def test_rules_accept_clean_source() -> None:
    path = "research/nets/a.py"
    assert not rules.undocumented(CLEAN) + rules.unannotated(CLEAN) + rules.silenced_types(CLEAN)
    assert not rules.banned_api(CLEAN, path) + rules.foreign_imports(CLEAN, path) + rules.bad_place(path)
    assert not rules.machine_paths("https://a.org/home/x, b/tmp/c") + rules.registry_hosts("on pypi")
    clean(rules.unmirrored({path: CLEAN}, ["tests/nets/test_a.py", "tests/nets/__init__.py"], {}))


@pytest.mark.parametrize(
    ("file", "source", "says"),
    [
        ("research/hand/a.py", "from research import run", "hand is not allowed to import research.run"),
        ("research/hand/a.py", "import research.graph.a", "hand is not allowed to import research.graph"),
        ("research/stray/__init__.py", "", "research.stray"),
        ("research/train/a.py", "import launch", "not allowed to import launch"),
        ("research/train/a.py", "def f():\n    import ethosu.vela", "research.train.a -> ethosu"),
        ("research/npu/a.py", "import ai_edge_litert", "research.npu.a -> ai_edge_litert"),
    ],
)
def test_import_contracts_can_fail(tmp_path: Path, file: str, source: str, says: str) -> None:
    rooms = ["hand", "graph", "npu", "data", "nets", "squeeze", "train", "report"]
    files = {f"research/{room}/{name}.py": "" for room in rooms for name in ("__init__", "a")}
    files |= {f"{name}.py": "" for name in ("research/__init__", "research/run", "launch/__init__")}
    files |= {"research/spec.py": "", "research/pytrees.py": ""}
    files |= {"research/npu/a.py": "import ethosu", "research/graph/a.py": "import ai_edge_litert"}
    for path, text in (files | {file: source + "\n" + files.get(file, "")}).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    result = lint_imports(tmp_path)
    assert result.returncode != 0
    assert says in result.stdout


# The climate


def test_there_are_two_devices() -> None:
    assert jax.device_count() == 2


def test_rank_promotion_raises() -> None:
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) * jnp.ones(3)


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_the_network_is_shut(host: str) -> None:
    with pytest.raises(NetworkUsed, match=host):
        socket.create_connection((host, 80), timeout=1)


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
        pass
