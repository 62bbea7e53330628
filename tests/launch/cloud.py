"""A cloud on this machine: the fake gcloud, its scripted states, workers in folders, and a trial that goes on."""

import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
QUEUED = ["WAITING_FOR_RESOURCES", "PROVISIONING"]
PINS = "jax==0.10.2\njaxlib==0.10.2\nlibtpu==0.0.1\nflax==1\noptax==1\norbax-checkpoint==1\nnumpy==2\n"
# A trial that goes on where it stopped, and says where that was.
TRIAL = """
import json, sys, time
from pathlib import Path
store, steps, code = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store.mkdir(exist_ok=True)
first = len(list(store.glob("step-*")))
with (store / "log").open("a") as log:
    log.write(f"from {first}\\n")
for step in range(first, steps):
    (store / f"step-{step}").write_text("x")
    print("step", step, flush=True)
    time.sleep(0.03)
(store / "result.json").write_text(json.dumps({"steps": steps}))
sys.exit(code)
"""


class Cloud:
    """A folder in which the fake gcloud keeps its world."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.store = folder, folder / "store"
        tools = folder / "tools"
        tools.mkdir(parents=True)
        # With this interpreter, so that nothing depends on what else is installed.
        fake = (HERE / "fake_gcloud").read_text().partition("\n")[2]
        (tools / "gcloud").write_text(f"#!{sys.executable} -SE\n{fake}")
        (tools / "gcloud").chmod(0o755)
        (tools / "python3.11").symlink_to(HERE / "fake_python")
        (folder / "versions").write_text(PINS)
        for name, value in {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "FAKE_GCLOUD_DIR": str(folder),
            "FAKE_VERSIONS": str(folder / "versions"),
            "REAL_PYTHON": sys.executable,
            "PYTHON": "python3.11",
            "NODE_GRACE": "2",
        }.items():
            patch.setenv(name, value)
        self.code = folder / "code.tar.gz"
        files = {"trial.py": TRIAL, "constraints.txt": PINS, "pyproject.toml": ""}
        (folder / "launch").mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        with tarfile.open(self.code, "w:gz") as archive:
            for name in files:
                archive.add(folder / name, name)
            archive.add(ROOT / "launch" / "node_up.sh", "launch/node_up.sh")
        self.script(["ACTIVE"])

    def script(self, *lives: list[Any], workers: int = 1, **errors: list[str]) -> None:
        """What describe shows in each life, and which calls fail first."""
        for number in range(workers):
            tools = self.folder / "workers" / str(number) / "bin"
            tools.mkdir(parents=True, exist_ok=True)
            (tools / "hostname").write_text(f"#!/bin/sh\necho worker-{number}\n")
            (tools / "hostname").chmod(0o755)
        script = {"lives": lives, "workers": workers, "errors": errors}
        (self.folder / "script.json").write_text(json.dumps(script))

    def words(self, *more: str, steps: int = 4, code: int = 0, topology: str = "v5e:2x4") -> list[str]:
        """A command line of launch.tpu_vm."""
        place = ["--name", "t", "--project", "p", "--zone", "z", "--topology", topology]
        files = ["--code", str(self.code), "--ledger", str(self.folder / "ledger.json")]
        budget = [] if "--max-chip-hours" in more else ["--max-chip-hours", "1"]
        trial = ["--", "python", "trial.py", str(self.store), str(steps), str(code)]
        return [*place, *files, *budget, "--poll", "0.03", "--save", "3", *more, *trial]

    def calls(self, verb: str = "") -> list[str]:
        """What gcloud was asked, in order."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        verbs = [json.loads(line)[3] for line in lines]
        return [each for each in verbs if verb in ("", each)]

    @property
    def exists(self) -> bool:
        """Whether a slice is there to be paid for."""
        path = self.folder / "world.json"
        return path.exists() and json.loads(path.read_text())["at"] >= 0

    @property
    def ledger(self) -> dict[str, Any]:
        """What the next call will know."""
        held: dict[str, Any] = json.loads((self.folder / "ledger.json").read_text())
        return held

    @property
    def starts(self) -> list[str]:
        """The step from which each run of the trial went on."""
        return (self.store / "log").read_text().splitlines()
