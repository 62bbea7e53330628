"""The house rules as functions over source text and repository paths; each returns what is wrong.

Paths are relative to the repository root, with forward slashes ("research/hand/camera.py"); [] means clean.
`tests/test_house.py` holds the repository to them and shows each of them failing on a small sample.
"""

import ast
import io
import json
import re
import statistics
import subprocess
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

TOP_LEVEL = {
    "pyproject.toml", "README.md", "Makefile", "research", "configs", "notebooks", "tests", "launch",
    "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt",
}  # fmt: skip
BAD_WORDS = {"util", "utils", "common", "helper", "helpers", "misc", "manager", "managers"}
OWNERS = {"flax.linen": "research/nets/", "ethosu": "research/npu/", "ai_edge_litert": "research/graph/"}
OUTSIDE_RESEARCH = ("configs", "launch", "notebooks", "tests")
BANNED = (
    "jax.pmap", "jax.tree_map", "jax.experimental.maps", "jax.experimental.pjit",
    "jax.experimental.shard_map", "flax.training", "clu",
)  # fmt: skip
SKIPS = (
    "pytest.skip", "pytest.importorskip", "pytest.xfail", "pytest.mark.skip", "pytest.mark.skipif",
    "pytest.mark.xfail", "unittest.skip", "unittest.skipIf", "unittest.skipUnless",
)  # fmt: skip
# What the card's packages are here for, and the room where that must be seen.
PURPOSES = {
    "jax.jit": "research/train/",
    "flax.linen": "research/nets/",
    "optax": "research/train/",
    "orbax.checkpoint": "research/train/",
    "chex.assert_max_traces": "research/train/",
    "tensorflow_datasets": "research/data/",
}
MACHINE_PATH = re.compile(r"(?<![\w./])/(?:root|home|work|tmp|Users)/|\b[A-Z]:\\Users\\")
REGISTRY = re.compile(
    r"\b(?:pypi\.org|pypi\.python\.org|pythonhosted\.org|npmjs\.(?:org|com)|anaconda\.org|deb\.debian\.org|crates\.io"
    r"|ghcr\.io|docker\.io)\b|--(?:extra-)?index-url"
)
UNFINISHED = re.compile("TO" + r"DO|FIX" + r"ME|\bXX" + r"X\b")
TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def repository_files(root: Path) -> list[str]:
    """Every file git tracks or would track; without git, every file outside environments, caches and runs."""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
        return sorted({path for path in listed if path and (root / path).is_file()})
    ignored = {".git", ".venv", ".cache", "runs", "sweeps", "__pycache__", "npu_squeeze.egg-info"}
    paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not ignored & set(path.parts))


# Shape of the tree


def stray_top_level(paths: list[str]) -> list[str]:
    """The card's top level is exact; dotfiles are free."""
    heads = {path.split("/")[0] for path in paths}
    return [f"{head}: not part of the top level" for head in sorted(heads - TOP_LEVEL) if head[0] != "."]


def bad_place(path: str) -> list[str]:
    """Folders are at most two deep under research/, and no name is a drain."""
    place = PurePosixPath(path)
    words = {word for part in place.with_suffix("").parts for word in part.lower().split("_")}
    found = [f"{path}: {word!r} says nothing; name the idea" for word in sorted(words & BAD_WORDS)]
    if place.parts[0] == "research" and len(place.parts) > 4:
        found.append(f"{path}: more than two folders deep under research/")
    return found


def bad_lengths(lines: Mapping[str, int]) -> list[str]:
    """No Python file over 400 lines; in research/ a median file of at most 150."""
    median, longest = 150, 400
    found = [f"{path}: {count} lines, at most {longest}" for path, count in lines.items() if count > longest]
    research = {path: count for path, count in lines.items() if path.startswith("research/")}
    ideas = [count for path, count in research.items() if not path.endswith("__init__.py")]
    if ideas and statistics.median(ideas) > median:
        found.append(f"research/: median file has {statistics.median(ideas):g} lines, at most {median}")
    return found


def code_lines(source: str) -> int:
    """Lines that hold code: no blank lines, comments or docstrings (those the house asks for, and never charges)."""
    silent = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            held.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held)


def too_much_code(sources: Mapping[str, str]) -> list[str]:
    """A room stays under 5,500 lines of code (npu, with its exact planner, 6,500), research/ under 19,000: a method
    that no table needs is left out."""
    rooms: dict[str, int] = {"research": 0}
    for path, source in sources.items():
        size = code_lines(source)
        for room in {"research", "/".join(path.split("/")[:2]) if path.count("/") > 1 else "research"}:
            rooms[room] = rooms.get(room, 0) + size
    limits = {"research": 20_500, "research/npu": 6_500}
    return [
        f"{room}/: {total} lines of code, must stay under {limits.get(room, 5500)}"
        for room, total in sorted(rooms.items())
        if total >= limits.get(room, 5500)
    ]


def mirror_of(path: str) -> str:
    """The test of a research file: tests/<room>/test_<file>.py; an __init__ goes by its folder's name."""
    place = PurePosixPath(path)
    name = place.parent.name if place.stem == "__init__" else place.stem
    return str(PurePosixPath("tests", *place.parent.parts[1:], f"test_{name}.py"))


def unmirrored(sources: Mapping[str, str], paths: list[str], exceptions: Mapping[str, str]) -> list[str]:
    """tests/ mirrors research/ one to one, but for the `exceptions`: {file without its counterpart: why}."""
    tests = {path for path in paths if path.startswith("tests/")}
    rooms = {path.split("/")[1] for path in sources if path.count("/") > 1}
    wanted = {path: mirror_of(path) for path, source in sources.items() if has_behaviour(source)}
    mirrors = {mirror_of(path) for path in sources}
    found = {path: f"no {test}" for path, test in wanted.items() if test not in tests}
    for test in tests - mirrors:
        parts = test.split("/")
        if len(parts) > 2 and parts[1] in rooms and parts[-1].startswith("test_"):
            found[test] = f"tests no file of research/{parts[1]}/"
    stale = [f"{path}: no longer an exception" for path in exceptions if path not in found]
    return [f"{path}: {what}" for path, what in sorted(found.items()) if path not in exceptions] + stale


def not_packages(paths: list[str]) -> list[str]:
    """Every folder with Python files under research/, launch/ and tests/ is a package."""
    here = [PurePosixPath(path) for path in paths if path.endswith(".py")]
    folders = {str(path.parent) for path in here if path.parts[0] in ("research", "launch", "tests")}
    return [f"{folder}: no __init__.py" for folder in sorted(folders) if f"{folder}/__init__.py" not in paths]


# What source says


def _public_definitions(source: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions, classes and methods with their dotted names; nested functions are private."""
    waiting = [("", node) for node in ast.parse(source).body]
    while waiting:
        prefix, node = waiting.pop(0)
        if isinstance(node, ast.If | ast.Try):
            waiting = [(prefix, child) for child in ast.iter_child_nodes(node)] + waiting
        elif isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                waiting = [(f"{prefix}{node.name}.", child) for child in node.body] + waiting


def has_behaviour(source: str) -> bool:
    """Whether a file has a public function or method, and so something to test."""
    return any(isinstance(node, Function) for _, node in _public_definitions(source))


def undocumented(source: str) -> list[str]:
    """A module and everything public in it has a docstring."""
    named = [("the module", ast.parse(source)), *_public_definitions(source)]
    return [f"{name} has no docstring" for name, node in named if not ast.get_docstring(node)]


def unannotated(source: str) -> list[str]:
    """Every argument and result of everything public is annotated."""
    found = []
    for name, node in _public_definitions(source):
        if isinstance(node, ast.ClassDef):
            continue
        a = node.args
        arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        bare = [x.arg for x in arguments if x.annotation is None and x.arg not in ("self", "cls")]
        bare += ["its result"] if node.returns is None else []
        found += [f"line {node.lineno}: {name} does not annotate {what}" for what in bare]
    return found


def names_used(source: str, path: str) -> set[tuple[int, str]]:
    """(line, full dotted name) of every import, import_module("...") and attribute, seen through aliases."""
    tree, alias, used = ast.parse(source), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                used.add((node.lineno, name.name))
                bound = name.asname or name.name.split(".")[0]
                alias[bound] = name.name if name.asname else bound
        elif isinstance(node, ast.ImportFrom):
            above = PurePosixPath(path).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            for name in node.names:
                used.add((node.lineno, f"{module}.{name.name}"))
                alias[name.asname or name.name] = f"{module}.{name.name}"
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            literals = (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))
            used |= {(node.lineno, str(value)) for value in literals}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            head, _, rest = ast.unparse(node).partition(".")
            if head in alias:
                used.add((node.lineno, f"{alias[head]}.{rest}"))
    return used


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _uses(source: str, path: str, packages: tuple[str, ...]) -> list[str]:
    hits = {(line, p) for line, name in names_used(source, path) for p in packages if _within(name, p)}
    return [f"{path}:{line}: uses {package}" for line, package in sorted(hits)]


def banned_api(source: str, path: str) -> list[str]:
    """Nothing deprecated, and no global switch to 64 bits."""
    constants = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    wide = [f"{path}:{n.lineno}: switches to x64" for n in constants if n.value == "jax_enable" + "_x64"]
    return _uses(source, path, BANNED) + ([] if path == "tests/conftest.py" else wide)  # it holds x64 off


def foreign_imports(source: str, path: str) -> list[str]:
    """Each guarded library has one door, and research/ imports nothing from the folders around it."""
    doors = tuple(package for package, door in OWNERS.items() if not path.startswith(door))
    outside = OUTSIDE_RESEARCH if path.startswith("research/") else ()
    return _uses(source, path, doors + outside)


def silenced_tests(source: str, path: str) -> list[str]:
    """No test is skipped or expected to fail."""
    return _uses(source, path, SKIPS)


def unserved(sources: Mapping[str, str]) -> list[str]:
    """Each of the card's six packages does its work in its room."""
    seen = {(path, name) for path, source in sources.items() for _, name in names_used(source, path)}
    return [
        f"{room}: nothing uses {package}"
        for package, room in PURPOSES.items()
        if not any(path.startswith(room) and _within(name, package) for path, name in seen)
    ]


def silenced_types(source: str) -> list[str]:
    """No comment switches the type checker off."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = (token for token in tokens if token.type == tokenize.COMMENT)
    return [f"line {c.start[0]}: type error silenced" for c in comments if TYPE_IGNORE.search(c.string)]


def bad_config(source: str) -> list[str]:
    """A config is a runnable page: a docstring, config(), under 60 lines."""
    tree, lines = ast.parse(source), len(source.splitlines())
    found = [f"{lines} lines, must stay under 60"] if lines >= 60 else []
    found += [] if ast.get_docstring(tree) else ["no docstring"]
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return found + ([] if "config" in functions else ["no config()"])


def bad_notebook(text: str) -> list[str]:
    """A notebook has fewer than 12 cells."""
    cells = len(json.loads(text)["cells"])
    return [f"{cells} cells, must stay under 12"] if cells >= 12 else []


def _lines_with(text: str, pattern: re.Pattern[str], meaning: str) -> list[str]:
    lines = enumerate(text.splitlines(), 1)
    return [f"line {n}: {meaning}: {line.strip()[:80]}" for n, line in lines if pattern.search(line)]


def machine_paths(text: str) -> list[str]:
    """No path of somebody's machine."""
    return _lines_with(text, MACHINE_PATH, "path of one machine")


def registry_hosts(text: str) -> list[str]:
    """No package index is named; where packages come from is the user's setting."""
    return _lines_with(text, REGISTRY, "package index named")


def unfinished(text: str) -> list[str]:
    """Nothing is left as a note to self."""
    return _lines_with(text, UNFINISHED, "unfinished")
