"""The words of the commands; their order in a life is in the goldens of test_tpu_vm.py."""

import shlex
import subprocess
from pathlib import Path

import pytest

from launch import tpu_commands as words
from launch.tpu_types import parse_slice

TARGET = words.Target("t", "p", "z")
SLICE = parse_slice("v5e:4x4")


@pytest.mark.parametrize(
    "command",
    [
        words.create(TARGET, SLICE, "r", spot=True, more=["--network=n"]),
        words.describe(TARGET),
        words.delete(TARGET),
        words.copy(TARGET, "a.tar.gz", ["--internal-ip"]),
        words.ssh(TARGET, "all", "true"),
    ],
)
def test_each_names_one_place_and_asks_nothing(command: list[str]) -> None:
    assert command[:3] == ["gcloud", "compute", "tpus"]
    assert command.count("--project=p") == command.count("--zone=z") == 1
    assert ("--quiet" in command) == (command[4] != "describe")


def test_spot_is_asked_for_only_when_wanted() -> None:
    assert "--spot" in words.create(TARGET, SLICE, "r", spot=True)
    assert "--spot" not in words.create(TARGET, SLICE, "r", spot=False)


def test_a_delete_does_not_stop_at_a_running_vm() -> None:
    assert "--force" in words.delete(TARGET)


def test_the_users_words_arrive_as_they_were(tmp_path: Path) -> None:
    """Through gcloud's --command, ssh's shell and node_up.sh's arguments."""
    odd = ["python", "a b", "$HOME", "'", '"', "--x=;", "", "é\n"]
    script = tmp_path / words.CODE / "launch" / "node_up.sh"
    script.parent.mkdir(parents=True)
    script.write_text('printf "%s\\0" "$@"')
    sent = words.ssh(TARGET, "0", words.node_run(60, odd))[-1].removeprefix("--command=")
    got = subprocess.run(["sh", "-c", sent], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert got.split("\0")[:-1] == ["run", "60", *odd]


def test_extras_are_one_word() -> None:
    assert shlex.split(words.node_up("a;b"))[-2:] == ["up", "a;b"]
    assert shlex.split(words.node_up(""))[-1] == ""


def test_git_commands() -> None:
    assert words.archive("dist/a.tar.gz")[-1] == "HEAD"
    assert words.changed_files()[:2] == ["git", "status"]


def test_stop_is_a_verb_of_the_script() -> None:
    assert words.node_stop() == f"{words.NODE_UP} stop"
