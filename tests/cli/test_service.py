"""`intelnav service` with a systemctl that keeps a record; the real one is asked in tests/appliance."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from intelnav.units import render
from tests.cli.conftest import Cli, Served

NODE = Path(sys.executable).with_name("intelnav-node")
SHOWN = """\
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
FragmentPath=/home/me/.config/systemd/user/intelnav.service
MainPID=4711
NRestarts=2
Result=success
StatusText=2 of 3 slices ready, 4 answers
"""
NOT_FOUND = (
    "LoadState=not-found\nActiveState=inactive\nSubState=dead\nMainPID=0\nNRestarts=0\nResult=success\n"
)
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "{folder}/calls"
case "$*" in
  "$REFUSES"*) [ -n "$REFUSES" ] && {{ echo "$SAYS" >&2; exit 1; }} ;;
esac
case "$*" in
  "--user show "*) cat "{folder}/shown" ;;
  "show-user "*) echo "${{LINGERS:-no}}" ;;
esac
"""


@dataclass
class Desk:
    """The command, beside a systemctl and a loginctl that write down what they are asked."""

    cli: Cli
    folder: Path

    def __call__(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        return self.cli("service", *arguments, **{"PATH": f"{self.folder}:{os.environ['PATH']}", **environ})

    def show(self, text: str) -> None:
        (self.folder / "shown").write_text(text)

    @property
    def calls(self) -> list[str]:
        record = self.folder / "calls"
        return record.read_text().splitlines() if record.exists() else []

    @property
    def unit(self) -> Path:
        return self.cli.home / ".config/systemd/user/intelnav.service"


@pytest.fixture
def desk(cli: Cli) -> Desk:
    folder = cli.home / "bin"
    folder.mkdir()
    for name in ("systemctl", "loginctl"):
        (folder / name).write_text(STAND_IN.format(folder=folder))
        (folder / name).chmod(0o755)
    (cli.home / "node.yaml").write_text("role: relay\nnetwork: {listen: 127.0.0.1:0}\n")
    desk = Desk(cli, folder)
    desk.show(SHOWN)
    return desk


def test_the_unit_is_printed_and_nothing_else_happens(desk: Desk) -> None:
    done = desk("install", "--print")
    assert (done.returncode, done.stderr, desk.calls) == (0, "", [])
    assert done.stdout.endswith(render("user", node=NODE, config=desk.cli.home / "node.yaml"))
    assert not desk.unit.exists()


def test_a_unit_is_installed_and_started(desk: Desk) -> None:
    printed = desk("install", "--print").stdout
    done = desk("install")
    assert (done.returncode, done.stderr) == (0, "")
    assert desk.unit.read_text() == printed
    assert "loginctl enable-linger" in done.stdout
    assert desk.calls == [
        "systemctl --user show-environment",
        "systemctl --user daemon-reload",
        "systemctl --user enable intelnav.service",
        "systemctl --user restart intelnav.service",
        f"loginctl show-user {os.getuid()} --property=Linger --value",
    ]


def test_a_node_with_the_same_unit_is_not_restarted(desk: Desk) -> None:
    desk("install")
    desk("install")
    (desk.cli.home / "other.yaml").write_text("role: relay\n")
    desk("install", "--config", "other.yaml")
    assert [call.split()[2] for call in desk.calls if "start intel" in call] == [
        "restart",
        "start",
        "restart",
    ]
    assert f"--config {desk.cli.home / 'other.yaml'}" in desk.unit.read_text()


def test_a_home_for_configs_that_is_elsewhere_is_used(desk: Desk) -> None:
    desk("install", XDG_CONFIG_HOME=str(desk.cli.home / "elsewhere"))
    assert (desk.cli.home / "elsewhere/systemd/user/intelnav.service").is_file()
    assert not desk.unit.exists()


def test_a_user_who_lingers_is_told_so(desk: Desk) -> None:
    done = desk("install", LINGERS="yes")
    assert "It lingers" in done.stdout
    assert "enable-linger" not in done.stdout


def test_variables_that_the_unit_does_not_get_are_mentioned(desk: Desk) -> None:
    assert "do not count" in desk("install", INTELNAV_ROLE="host").stdout
    assert "do not count" not in desk("install").stdout


def no_config(desk: Desk) -> None:
    (desk.cli.home / "node.yaml").unlink()


def wrong_config(desk: Desk) -> None:
    (desk.cli.home / "node.yaml").write_text("rolle: host\n")


def foreign_unit(desk: Desk) -> None:
    desk.unit.parent.mkdir(parents=True)
    desk.unit.write_text("[Service]\nExecStart=/bin/true\n")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (no_config, "node.yaml: there is no such file; write one with `intelnav init --config node.yaml`"),
        (wrong_config, "rolle: unknown key"),
        (foreign_unit, "was not written by `intelnav service install`"),
    ],
)
def test_nothing_changes_where_something_is_in_the_way(
    desk: Desk, prepare: Callable[[Desk], None], reason: str
) -> None:
    prepare(desk)
    before = desk.unit.read_text() if desk.unit.exists() else None
    done = desk("install")
    assert (done.returncode, done.stdout, desk.calls) == (1, "", [])
    assert reason in done.stderr
    assert (desk.unit.read_text() if desk.unit.exists() else None) == before


@pytest.mark.parametrize("command", ["install", "status"])
def test_a_machine_without_systemd_is_told_what_to_do_instead(desk: Desk, command: str) -> None:
    done = desk(command, PATH=str(desk.cli.home))
    assert done.returncode == 1
    assert done.stderr.startswith("intelnav: there is no systemctl: without systemd, run `intelnav-node")
    assert not desk.unit.exists()


def test_a_user_without_a_session_is_told_what_to_do(desk: Desk) -> None:
    done = desk("install", REFUSES="--user", SAYS="Failed to connect to bus: No medium found")
    assert done.returncode == 1
    assert "this user has no running systemd (Failed to connect to bus: No medium found)" in done.stderr
    assert not desk.unit.exists()


def test_a_node_that_does_not_come_up_is_told_with_the_way_to_its_log(desk: Desk) -> None:
    done = desk("install", REFUSES="--user restart", SAYS="Job for intelnav.service failed.")
    assert done.returncode == 1
    assert "Job for intelnav.service failed.; the log: journalctl --user" in done.stderr


def test_the_state_is_shown(desk: Desk) -> None:
    shown = desk("status").stdout
    assert "active (running), enabled" in shown
    assert "process 4711, 2 restarts: 2 of 3 slices ready, 4 answers" in shown
    assert json.loads(desk("status", "--json", LINGERS="yes").stdout) == {
        "installed": True,
        "unit": "/home/me/.config/systemd/user/intelnav.service",
        "state": "active",
        "detail": "running",
        "enabled": "enabled",
        "pid": 4711,
        "restarts": 2,
        "result": "success",
        "says": "2 of 3 slices ready, 4 answers",
        "lingers": True,
    }


def test_a_node_that_failed_is_shown_with_the_way_to_its_log(desk: Desk) -> None:
    desk.show(
        SHOWN.replace("=active", "=failed")
        .replace("=4711", "=0")
        .replace("Result=success", "Result=watchdog")
    )
    shown = desk("status").stdout
    assert "failed (running)" in shown
    assert "it ended with watchdog; its log: journalctl" in shown


def test_a_unit_that_is_not_there_is_shown_as_such(desk: Desk) -> None:
    desk.show(NOT_FOUND)
    assert "`intelnav service install` writes it" in desk("status").stdout
    found = json.loads(desk("status", "--json").stdout)
    assert (found["installed"], found["pid"]) == (False, None)


def test_a_unit_is_taken_away_again(desk: Desk) -> None:
    desk("install")
    done = desk("uninstall")
    assert (done.returncode, done.stderr) == (0, "")
    assert not desk.unit.exists()
    assert (desk.cli.home / "node.yaml").exists()
    assert desk.calls[-2:] == [
        "systemctl --user disable --now intelnav.service",
        "systemctl --user daemon-reload",
    ]
    calls = desk.calls
    again = desk("uninstall")
    assert (again.returncode, "nothing is to be taken away" in again.stdout) == (0, True)
    assert desk.calls == calls


def test_a_unit_of_somebody_else_is_not_taken_away(desk: Desk) -> None:
    foreign_unit(desk)
    done = desk("uninstall")
    assert (done.returncode, desk.calls, desk.unit.exists()) == (1, [], True)


def test_a_chat_shows_the_state_of_the_unit(desk: Desk, served: Served) -> None:
    done = desk.cli(
        "chat",
        "--node",
        str(served.socket),
        stdin="/service\n",
        PATH=f"{desk.folder}:{os.environ['PATH']}",
    )
    assert "process 4711, 2 restarts: 2 of 3 slices ready, 4 answers" in done.stdout
    assert done.returncode == 0


def test_a_chat_goes_on_where_there_is_no_systemd(desk: Desk, served: Served) -> None:
    done = desk.cli("chat", "--node", str(served.socket), stdin="/service\n/model\n", PATH=str(desk.cli.home))
    assert "there is no systemctl" in done.stderr
    assert "* counting" in done.stdout
