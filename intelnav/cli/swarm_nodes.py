"""Starting and stopping the nodes of a sandbox swarm: real daemons on loopback addresses."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml

from intelnav.cli.client import NodeClient, NodeError
from intelnav.cli.swarm_files import FILE, MARK, Member, Swarm
from intelnav.config import load
from intelnav.domain.errors import ConfigError, IntelNavError
from intelnav.domain.slice import LayerRange
from intelnav.keyfile import load_or_create
from intelnav.store.model_file import describe

START_SECONDS = 600.0
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.1
_LOG_LINES = 15

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start. `ranges` are the layers of each node, the entry first; `threads` 0: let nodes choose."""

    model: Path
    ranges: tuple[LayerRange, ...]
    dtype: str = "f16"
    head: Literal["tail", "entry"] = "tail"
    threads: int = 0


def layer_ranges(model: Path, cuts: tuple[int, ...], nodes: int) -> tuple[LayerRange, ...]:
    """The layers of each node: cut where `cuts` says, or without it into `nodes` parts as even as can be."""
    file = describe(model)
    if not file.is_whole:
        raise ConfigError(f"--model {model} holds layers {file.layers} of {file.blocks}: name a whole model")
    if not cuts:
        if nodes > file.blocks:
            raise ConfigError(
                f"--nodes {nodes}: {model.name} has {file.blocks} layers; ask for as many at most"
            )
        cuts = tuple(round(part * file.blocks / nodes) for part in range(1, nodes))
    ends = (0, *cuts, file.blocks)
    if any(start >= end for start, end in pairwise(ends)):
        written = ",".join(map(str, cuts))
        raise ConfigError(
            f"--cuts {written}: write rising numbers from 1 to {file.blocks - 1}, for instance 8,15,22"
        )
    return tuple(LayerRange(start, end) for start, end in pairwise(ends))


def start(root: Path, plan: Plan, report: Report) -> Swarm:
    """Start a node for each range and wait until all are ready. If one fails, none is left running."""
    old = Swarm.load(root)
    if old is not None and any(member.processes() for member in old.members):
        raise ConfigError(
            f"a swarm runs already in {root}: end it with `intelnav swarm down`, or name another --root"
        )
    members = tuple(_configured(root, plan))
    name = load(members[0].config, {}).entry[0].name
    swarm = Swarm(root, name, members)
    children: list[subprocess.Popen[bytes]] = []
    # Saved before anything runs, so that `down` finds every node even if this process is killed.
    swarm.save()
    try:
        for index, member in enumerate(members):
            children.append(_spawned(member))
            started = replace(member, pid=children[-1].pid)
            swarm = replace(swarm, members=(*swarm.members[:index], started, *members[index + 1 :]))
            swarm.save()
        _wait(swarm, children, report)
    except BaseException:
        stop(swarm)
        raise
    return swarm


def stop(swarm: Swarm) -> int:
    """End every process of the swarm, by force after a grace period; returns how many there were."""
    running = [process for member in swarm.members for process in member.processes()]
    leaders = {member.pid for member in swarm.members}
    for process in running:
        if process.pid in leaders:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
    psutil.wait_procs(running, timeout=STOP_SECONDS)
    left = [process for member in swarm.members for process in member.processes()]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=STOP_SECONDS)
    for member in swarm.members:
        member.socket.unlink(missing_ok=True)
    (swarm.root / FILE).unlink(missing_ok=True)
    return len(running)


def _configured(root: Path, plan: Plan) -> Iterator[Member]:
    """The nodes, with keys and config files written, but not running; pid is 0. Raises ConfigError."""
    names = ["entry", *(f"peer-{number}" for number in range(1, len(plan.ranges)))]
    ports = free_ports(len(names))
    members = []
    for name, layers, port in zip(names, plan.ranges, ports, strict=True):
        folder = root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        identity = load_or_create(folder / "peer.key")
        listen = None if name == "entry" else f"127.0.0.1:{port}"
        members.append(Member(name, folder, 0, str(identity.peer), str(layers), listen))
    for member in members:
        settings = _entry(plan, members) if member.listen is None else _host(plan, member, members)
        settings |= {"data_dir": f"./{member.name}", "backend": {"threads": plan.threads}}
        member.config.write_text(yaml.safe_dump(settings, sort_keys=False))
        load(member.config, {})
        yield member


def _entry(plan: Plan, members: list[Member]) -> dict[str, Any]:
    front = {"model": str(plan.model), "layers": members[0].layers, "head": plan.head}
    network = {"listen": None, "dtype": plan.dtype, "bootstrap": [members[1].listen]}
    return {"entry": [front], "network": network}


def _host(plan: Plan, member: Member, members: list[Member]) -> dict[str, Any]:
    """A host; the first one is where all others start in the DHT, and all that they are told."""
    held = {"model": str(plan.model), "layers": member.layers}
    bootstrap = [] if member is members[1] else [members[1].listen]
    network = {"listen": member.listen, "bootstrap": bootstrap}
    return {"slices": [held], "network": network, "store": {"chunks": "127.0.0.1:0"}}


def _spawned(member: Member) -> subprocess.Popen[bytes]:
    """The node's process, in a session of its own: Ctrl-C here does not reach it, and it outlives us."""
    # -P: what is installed, and not a checkout that this happens to be started in.
    command = [sys.executable, "-P", "-m", "intelnav.node", "--config", str(member.config)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("INTELNAV_")}
    environment[MARK] = member.mark
    with member.log.open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _wait(swarm: Swarm, children: list[subprocess.Popen[bytes]], report: Report) -> None:
    """Return when every node is ready; IntelNavError with the reason if one never will be."""
    deadline = time.monotonic() + START_SECONDS
    waiting = dict(zip(swarm.members, children, strict=True))
    report(_progress(swarm, waiting))
    while waiting:
        for member, child in list(waiting.items()):
            if child.poll() is not None:
                raise IntelNavError(f"{member.name} ended at its start:\n{_tail(member.log)}")
            if _is_ready(member) and (member != swarm.entry or _has_chain(swarm)):
                del waiting[member]
                report(_progress(swarm, waiting))
        if time.monotonic() > deadline:
            raise IntelNavError(
                f"{_progress(swarm, waiting)} after {START_SECONDS:.0f} s; see {swarm.root}/*.log"
            )
        time.sleep(_POLL_SECONDS)


def _is_ready(member: Member) -> bool:
    """Whether the node can work; IntelNavError if its slice failed."""
    if not member.socket.exists():
        return False
    with NodeClient(str(member.socket)) as node:
        try:
            if node.unready() is None:
                return True
            status = node.status()
        except NodeError:
            return False
    for part in (*status["slices"], *status["entry"]):
        if part["state"] == "failed":
            raise IntelNavError(f"{member.name} cannot load layers {part['layers']}: {part['reason']}")
    return False


def _has_chain(swarm: Swarm) -> bool:
    """Whether the entry has found hosts for all layers."""
    with NodeClient(str(swarm.entry.socket)) as node:
        return not node.route(swarm.model, 1)["problem"]


def _progress(swarm: Swarm, waiting: dict[Member, Any]) -> str:
    if not waiting:
        return f"{len(swarm.members)} nodes are ready"
    names = ", ".join(f"{member.name} ({member.layers})" for member in waiting)
    return f"{len(swarm.members) - len(waiting)} of {len(swarm.members)} nodes are ready, loading {names}"


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"


def free_ports(count: int) -> list[int]:
    """Free loopback ports that the kernel hands to nobody unasked, so that they stay free a moment longer."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        low, high = 32768, 65535
    candidates = [port for port in range(10_000, 65_536) if not low <= port <= high] or list(
        range(10_000, 65_536)
    )
    ports: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(ports) == count:
            break
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
    return ports
