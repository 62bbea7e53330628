"""The README's method in 30 lines is real code: it is read from the page, chained, and trained."""

import dataclasses
import re
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from research.door import load
from research.pytrees import flatten
from research.spec import Stage, named
from research.train.arms import full
from research.train.fit import fit

ROOT = Path(__file__).resolve().parent.parent
HEAD = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
import jax.numpy as jnp
from research.pytrees import map_paths, select, straight_through
from research.squeeze import IDENTITY, Link, Setting, Transform
from research.squeeze.transform import SPARSITY
"""


def method_of_the_page(monkeypatch: pytest.MonkeyPatch) -> Any:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    found = next(block for block in blocks if "(Link)" in block)
    assert len(found.strip().splitlines()) <= 30
    module = types.ModuleType("method_of_the_readme")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(HEAD + found, "README.md", "exec", dont_inherit=True), vars(module))
    return module.Magnitude


def test_own_method_trains_and_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exp = load(ROOT / "configs" / "v2.py", smoke=True)
    method = method_of_the_page(monkeypatch)
    track = dataclasses.replace(exp.tracks["v2"], stages=(Stage("own", 2, ("magnitude",)),))
    exp = dataclasses.replace(
        exp,
        tracks=exp.tracks.replace("v2", track),
        squeeze=named(magnitude=method(share=0.75, where=("neck/kernel",))),
        claims=named(),
        rows=(),
    )
    params = flatten(jax.tree.map(np.asarray, fit(exp, full(exp), tmp_path).params))
    assert np.mean(params["neck/kernel"] == 0) == np.float32(0.75)
    assert np.all(params["stem/kernel"] != 0)
