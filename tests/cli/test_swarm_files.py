import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from intelnav.cli.swarm_files import MARK, Member, Swarm, default_root, locked, node_states
from intelnav.domain.errors import ConfigError
from tests.waiting import until

WAIT = "import signal; signal.pause()"
LEAVE_A_WORKER = (
    f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {WAIT!r}]).pid, flush=True)"
)


@pytest.fixture
def member(tmp_path: Path) -> Member:
    """A node that does not run."""
    return Member("peer-1", tmp_path / "peer-1", 0, "aaaq", "8..15", "127.0.0.1:7717")


@pytest.fixture
def leave() -> Iterator[list[int]]:
    """Pids to kill in the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def spawn(program: str, config: Path) -> "subprocess.Popen[str]":
    """A process that was started for the node with this config."""
    environ = os.environ | {MARK: str(config)}
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environ)


def test_a_swarm_is_read_as_it_was_written(tmp_path: Path, member: Member) -> None:
    entry = Member("entry", tmp_path / "entry", 7, "eaqs", "0..8", None)
    swarm = Swarm(tmp_path, "smollm2", (entry, member))
    swarm.save()
    assert Swarm.load(tmp_path) == swarm
    assert swarm.entry.socket == tmp_path / "entry/control.sock"
    assert (member.config, member.log) == (tmp_path / "peer-1.yaml", tmp_path / "peer-1.log")


def test_there_may_be_no_swarm(tmp_path: Path) -> None:
    assert Swarm.load(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model": "a", "nodes": [{}]}', '{"model": "a", "nodes": [{"folder": 5}]}']
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "swarm.json").write_text(text)
    with pytest.raises(ConfigError, match=r"swarm.json is damaged"):
        Swarm.load(tmp_path)


def test_a_file_names_no_folder_outside_of_its_own(tmp_path: Path, member: Member) -> None:
    Swarm(tmp_path, "m", (replace(member, name="../../etc"),)).save()
    loaded = Swarm.load(tmp_path)
    assert loaded is not None
    assert loaded.entry.folder == tmp_path / "etc"


def test_a_node_that_runs_is_seen(member: Member, tmp_path: Path) -> None:
    with spawn(WAIT, member.config) as process:
        started = replace(member, pid=process.pid)
        assert [found.pid for found in started.processes()] == [process.pid]
        (tmp_path / "link").symlink_to(tmp_path)
        assert len(replace(started, folder=tmp_path / "link/peer-1").processes()) == 1
        process.kill()
    assert started.processes() == []


def test_another_program_with_the_pid_is_not_taken_for_the_node(member: Member, tmp_path: Path) -> None:
    with spawn(WAIT, tmp_path / "entry.yaml") as process:
        assert replace(member, pid=process.pid).processes() == []
        process.kill()
    assert replace(member, pid=os.getpid()).processes() == []


def test_a_node_that_has_ended_but_is_not_yet_reaped_does_not_run(member: Member) -> None:
    with spawn("", member.config) as process:
        until(lambda: replace(member, pid=process.pid).processes() == [])


def test_a_worker_that_outlived_its_node_is_seen(member: Member, leave: list[int]) -> None:
    with spawn(LEAVE_A_WORKER, member.config) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        leave.append(worker)
        process.wait(10)
    assert [found.pid for found in replace(member, pid=process.pid).processes()] == [worker]


def test_a_node_without_a_process_is_stopped(tmp_path: Path, member: Member) -> None:
    (state,) = node_states(Swarm(tmp_path, "m", (member,)))
    assert (state["name"], state["state"], state["layers"]) == ("peer-1", "stopped", "8..15")


def test_a_root_is_held_by_one_command_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "new"):
        with pytest.raises(ConfigError, match="another command"), locked(tmp_path / "new"):
            pass
        with locked(tmp_path / "other"):
            pass
    with locked(tmp_path / "new"):
        pass


def test_a_root_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="name another folder with --root"), locked(tmp_path / "file/root"):
        pass


def test_the_usual_root_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_root() == Path.home() / ".local/state/intelnav/swarm"
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_root() == Path("/state/intelnav/swarm")
