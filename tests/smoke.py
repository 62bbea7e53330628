"""The tiny experiment that every test of training shares, and with it the compiled steps; one finished run of it."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from research.door import load
from research.run import main
from research.spec import Experiment
from research.squeeze import NM, Distill, WidthGates

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "v2.py"


class Finished(NamedTuple):
    """A run of the command line that came to its end: its exit code and everything it printed and wrote."""

    exp: Experiment
    workdir: Path
    code: int
    printed: str
    result: dict[str, Any]

    def export(self, arm: str) -> bytes:
        """The `.tflite` file of an arm."""
        return (self.workdir / "exports" / f"{arm}.tflite").read_bytes()


def smoke(*overrides: str) -> Experiment:
    """The main job's experiment, shrunk to seconds, after overrides."""
    return load(CONFIG, *overrides, smoke=True)


def v1_steps(steps: int) -> str:
    """The override that gives the baseline another number of steps."""
    return f"tracks.v1.stages.dense.steps={steps}"


def link_of(exp: Experiment, kind: type[NM | Distill | WidthGates]) -> str:
    """The name of the first link of a class."""
    return next(name for name, link in exp.squeeze.items if isinstance(link, kind))


def run(workdir: Path, *words: str, config: Path = CONFIG) -> tuple[int, str, str]:
    """The smoke command line in this process: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(config), "--smoke", "--workdir", str(workdir), *words])
    return code, out.getvalue(), err.getvalue()


def finish(workdir: Path) -> Finished:
    """The finished run."""
    code, printed, errors = run(workdir)
    assert code == 0, errors
    (workdir.parent / "printed.txt").write_text(printed)
    made = found(workdir)
    assert made is not None
    return made


def found(workdir: Path) -> Finished | None:
    """The run that `finish` left in `workdir`, if it did."""
    told = workdir.parent / "printed.txt"
    if not told.is_file():
        return None
    return Finished(smoke(), workdir, 0, told.read_text(), json.loads((workdir / "result.json").read_text()))


def arrays(tree: Any) -> list[np.ndarray]:
    """The leaves of a tree as numpy arrays, in a fixed order."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def same_bits(one: Any, other: Any) -> bool:
    """Whether two trees of numbers have equal structure and equal bits."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs = list(zip(arrays(one), arrays(other), strict=True))
    assert not any(a.dtype == object for a, _ in pairs)
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def largest_difference(one: Any, other: Any) -> float:
    """The largest absolute difference of two trees of one structure."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return max(float(np.max(np.abs(a - b))) for a, b in zip(arrays(one), arrays(other), strict=True))
