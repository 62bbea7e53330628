"""The sweeps that are shipped: every point fits, trials of one sweep share a program, and each runs shrunk."""

import csv
import itertools
from pathlib import Path

import pytest

from launch import sweep
from launch.job import Job, job_of
from launch.pack import packs_of
from launch.plan import Sweep, plan
from tests.smoke import ROOT

CONFIG = ROOT / "configs" / "sweeps" / "v2.py"
SIZES = {"seeds": 8, "frontier": 32, "distillation": 32}


@pytest.mark.parametrize("name", SIZES)
def test_every_point_fits_and_all_share_a_program(name: str) -> None:
    job: Job = job_of(str(CONFIG), name)
    assert isinstance(job.sweep, Sweep)
    assert job.size == SIZES[name]
    planned = [plan(job.sweep, generation, []) for generation in range(len(job.generations()))]
    points = dict(enumerate(itertools.chain.from_iterable(planned)))
    assert len({repr(point) for point in points.values()}) == job.size
    packs = packs_of(job, points, points, job.sweep.population)
    assert [len(pack) for pack in packs] == [job.sweep.population] * (job.size // job.sweep.population)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_it_runs_shrunk(name: str, tmp_path: Path) -> None:
    words = ["--sweep", name, "--smoke", "--trials", "2", "--store", str(tmp_path)]
    assert sweep.main([str(CONFIG), *words]) == 0
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["done", "done"]
    assert all(float(row["error_px_int8"]) > 0 for row in rows)
    assert (tmp_path / "pareto.md").exists()
