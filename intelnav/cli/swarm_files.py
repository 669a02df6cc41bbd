"""A sandbox swarm on disk: which nodes it has, and which of their processes run."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from intelnav.cli.client import SOCKET, NodeClient, NodeError
from intelnav.domain.errors import ConfigError

FILE = "swarm.json"
MARK = "INTELNAV_SANDBOX"
"""Variable that a node is started with, and that its workers inherit; see `Member.mark`."""


@dataclass(frozen=True, slots=True)
class Member:
    """One node: its folder, its process, who it is, which layers it runs, and where it listens."""

    name: str
    folder: Path
    pid: int
    peer: str
    layers: str
    listen: str | None

    @property
    def config(self) -> Path:
        """The node's config file."""
        return self.folder.with_suffix(".yaml")

    @property
    def log(self) -> Path:
        """What the node wrote to its standard error."""
        return self.folder.with_suffix(".log")

    @property
    def socket(self) -> Path:
        """The node's control socket."""
        return self.folder / SOCKET

    @property
    def mark(self) -> str:
        """The value of the variable `MARK` in the node's processes; the same however its root is written."""
        return str(self.config.resolve())

    def processes(self) -> list[psutil.Process]:
        """The node and its workers, as far as they run.

        They are known by a variable in their environment: a pid could by now be that of another program.
        """
        return [process for process in psutil.process_iter() if _mark(process) == self.mark]


@dataclass(frozen=True, slots=True)
class Swarm:
    """The nodes of one sandbox, the entry first; `name` is what the entry calls the model."""

    root: Path
    model: str
    members: tuple[Member, ...]

    @property
    def entry(self) -> Member:
        """The node that answers."""
        return self.members[0]

    def save(self) -> None:
        """Write `swarm.json`, whole or not at all."""
        nodes = [asdict(member) | {"folder": member.name} for member in self.members]
        text = json.dumps({"model": self.model, "nodes": nodes}, indent=2)
        draft = self.root / f"{FILE}.new"
        draft.write_text(text + "\n")
        draft.replace(self.root / FILE)

    @classmethod
    def load(cls, root: Path) -> "Swarm | None":
        """The swarm that was started in `root`; ConfigError if its file is damaged."""
        try:
            data = json.loads((root / FILE).read_text())
            members = (
                Member(**node | {"folder": root / Path(node["folder"]).name}) for node in data["nodes"]
            )
            return cls(root, data["model"], tuple(members))
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                f"{root / FILE} is damaged ({error}): end the nodes by hand and remove it"
            ) from error


def default_root() -> Path:
    """Where a swarm lives if nothing else is said."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "intelnav/swarm"


def node_states(swarm: Swarm) -> list[dict[str, Any]]:
    """Each node as `swarm.json` knows it, with its `state`: ready, why it is not, or stopped."""
    return [
        asdict(member) | {"folder": str(member.folder), "state": _state(member)} for member in swarm.members
    ]


def _state(member: Member) -> str:
    if not member.processes():
        return "stopped"
    try:
        with NodeClient(str(member.socket)) as node:
            return node.unready() or "ready"
    except NodeError:
        return "not answering"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other commands from starting or stopping the swarm in `root` at the same time."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("a")
    except OSError as error:
        raise ConfigError(f"{root}: {error.strerror}; name another folder with --root") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another command starts or stops the swarm in {root}: wait for it") from None
        yield


def _mark(process: psutil.Process) -> str | None:
    """Which node's config a process was started for; None for all others, and for one that has ended."""
    try:
        return process.environ().get(MARK) if process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, psutil.Error):
        return None
