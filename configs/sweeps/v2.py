"""Three sweeps of configs/v2.py: how sure its table is, what its budget costs, and what distillation needs.

Command:  python -m launch.sweep configs/sweeps/v2.py --sweep seeds|frontier|distillation --store sweeps/NAME
Time:     10 minutes a trial on 2 CPU cores; on TPUs launch/README.md has the chip-hours that the compiler predicts.
Expect:   nothing yet: only their shrunk runs were made (tests/launch/test_shipped.py).
"""

from pathlib import Path

from launch.plan import Choice, Float, Int, Sweep
from research.spec import Experiment, load

WANTED = {"error_px_int8": "min", "ms_referee": "min"}


def config() -> Experiment:
    """V2 as it is."""
    return load(Path(__file__).parent.parent / "v2.py")


def seeds() -> Sweep:
    """Eight seeds: mean and spread of every row."""
    return Sweep(space={"seed": Int(0, 7)}, objectives=WANTED, trials=0, sampler="grid", population=8)


def frontier() -> Sweep:
    """Error against time: budgets from half to all of what the dense network takes, at several rates and gate rates."""
    space = {
        "squeeze.gates.budget_ms": Float(0.5, 0.95),
        "optim.lr": Float(5e-3, 2e-2, log=True),
        "optim.gate_lr": Float(2e-2, 1e-1, log=True),
    }
    return Sweep(space, WANTED, trials=32, constraints={"sram_kb": 64.0}, sampler="qmc", population=8)


def distillation() -> Sweep:
    """What of the teacher helps: its output, where it looks, both or nothing, four seeds each."""
    space = {
        "squeeze.distill.output": Choice(0.0, 0.3, 1.0, 3.0),
        "squeeze.distill.attention": Choice(0.0, 0.05),
        "seed": Int(0, 3),
    }
    return Sweep(space, WANTED, trials=0, sampler="grid", population=8)


sweep = seeds
