"""What a notebook calls: `load` a config, `fit` a network of it, `price` a network on a chip, show the `table`."""

from __future__ import annotations

import dataclasses as dc
import hashlib
import json
from pathlib import Path
from typing import Any

from research import spec
from research.data.recorded import recorded
from research.npu.chip import U85_128, Chip
from research.pytrees import nearest
from research.report.tables import markdown_table
from research.spec import Experiment, Named
from research.train.arms import Arm, all_arms
from research.train.fit import Outcome, check_links
from research.train.fit import fit as fit_arm
from research.train.ledger import check_experiment
from research.train.measure import price_network
from research.train.progress import Reporter
from research.train.record import claim, locked
from research.train.runtime import prepare_runtime


def load(
    path: str | Path,
    *overrides: str,
    smoke: bool = False,
    data: str = "",
    data_dir: str | Path = "runs/sets",
) -> Experiment:
    """The experiment of a config file after typed overrides such as "optim.lr=1e-3"; `smoke` shrinks it to seconds.

    `data` puts recorded hands in place of its own: "freihand", prepared in `data_dir`, or "npz:FILE".
    Raises FileNotFoundError, ValueError, KeyError or TypeError with one clear line.
    """
    exp = spec.load(path)
    if data:
        exp = dc.replace(exp, data=recorded(data, data_dir, exp.data.size_px, exp.data.test_images))
    if smoke:
        exp = exp.smoke()
    for text in overrides:
        exp = spec.override(exp, *spec.parse_override(text))
    return exp


def fit(exp: Experiment, arm: str = "", workdir: str | Path | None = None, *, quiet: bool = False) -> Outcome:
    """Trains one network of an experiment, by name: "v1", "v2", "v2+sparse" ... ("" is the target with every link).

    Interrupt it and call it again: it goes on. Without a `workdir` each edited experiment gets its own folder under
    runs/; a changed float (learning rate, loss weight, budget) or number of steps uses the step already compiled.
    """
    prepare_runtime()
    check_experiment(exp)
    check_links(exp)
    chosen = find_arm(exp, arm)
    folder = Path(workdir) if workdir else Path("runs") / f"{exp.name}-{fingerprint(exp)}"
    with locked(folder):
        claim(folder, exp)
        return fit_arm(exp, chosen, folder, reporter=Reporter(quiet))


def price(network: Any, chip: Chip = U85_128, links: Named | None = None) -> dict[str, float]:
    """Simulated price of a network spec or of what `fit` returned: ms, MACs, parameters, SRAM and weight kB, mJ.

    `links` prices transforms too, as in `price(exp.tracks["v2"].net, links=exp.squeeze)`.
    """
    return price_network(getattr(network, "net", network), chip, links or Named())


def table(result: str | Path | dict[str, Any]) -> str:
    """The Markdown table of a finished run: its `result.json`, its workdir, or the loaded result."""
    if isinstance(result, dict):
        return markdown_table(result)
    path = Path(result)
    path = path / "result.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"no result at {str(path)!r}: finish a run first (python -m research.run CONFIG)"
        )
    return markdown_table(json.loads(path.read_text()))


def find_arm(exp: Experiment, name: str) -> Arm:
    """The arm called `name`, "" for the target with every link. ValueError for an unknown name."""
    arms = {arm.name: arm for arm in all_arms(exp)}
    name = name or "+".join((exp.target, *exp.squeeze.names))
    if name not in arms:
        raise ValueError(f"no network {name!r} in experiment {exp.name!r}; {nearest(name, arms)}")
    return arms[name]


def fingerprint(exp: Experiment) -> str:
    """Eight hexadecimal digits of an experiment's content."""
    return hashlib.sha256(json.dumps(spec.to_json(exp), sort_keys=True).encode()).hexdigest()[:8]
