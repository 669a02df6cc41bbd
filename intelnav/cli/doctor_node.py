"""Checks of `intelnav doctor` that a running node answers: what it does, and whether others find and reach it."""

import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from intelnav.cli.client import NodeClient, NodeError
from intelnav.cli.finding import Finding
from intelnav.config import NodeConfig
from intelnav.domain.advert import Address

Json = dict[str, Any]

NETWORK = "reachability", "DHT"


def status_of(where: str | None) -> Json | None:
    """What the node there says of itself; None if none answers."""
    try:
        with NodeClient(where) as asked:
            return asked.status()
    except NodeError:
        return None


def config_file(status: Json | None) -> Path | None:
    """The file that a running node was started with, if it says so."""
    told = (status or {}).get("config")
    return Path(told["file"]) if isinstance(told, dict) and told.get("file") else None


def pid_of(control: Path) -> int | None:
    """The process that listens on a control socket; None if that cannot be told."""
    if sys.platform != "linux":
        return None
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(control))
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])
    return None


def node(config: NodeConfig, status: Json | None) -> Finding:
    """Whether a node runs, and all of its slices with it."""
    control = config.control_socket
    if status is None:
        if control.exists() and pid_of(control) is not None:
            found = f"a process listens on {control}, and does not answer"
            return Finding("node", "fail", found, f"end process {pid_of(control)}, and start the node again")
        return Finding("node", "warn", "none runs", "start it: intelnav-node --config FILE")
    parts = [*status["slices"], *status["entry"]]
    broken = [
        f"layers {part['layers']} of {part['model']}: {part['reason']}" for part in parts if part["reason"]
    ]
    what = f"{status['role']} {status['peer'][:8]}, version {status['version']}, up {status['uptime_seconds']:.0f} s"
    if broken:
        return Finding(
            "node", "fail", "\n".join([what, *broken]), "see the reasons; `intelnav status` shows all"
        )
    ready = sum(part["state"] == "ready" for part in parts)
    if ready < len(parts):
        return Finding("node", "warn", f"{what}, {ready} of {len(parts)} slices ready", "wait: it is at work")
    return Finding("node", "ok", f"{what}, {len(parts)} slices, all ready")


def network(config: NodeConfig, status: Json | None, where: str | None) -> Iterator[Finding]:
    """Whether others reach this node, and whether it knows any."""
    known: Json | None = None
    if status is not None:
        with suppress(NodeError), NodeClient(where or str(config.control_socket)) as asked:
            known = asked.peers()
    if known is None:
        for check in NETWORK:
            yield Finding(check, "warn", "not checked: only a running node can tell", "start the node")
        return
    yield _reachability(config, known)
    yield _contacts(config, known)


def _contacts(config: NodeConfig, known: Json) -> Finding:
    """Whether it knows nodes of the DHT."""
    contacts, links = len(known["contacts"]), len(known["links"])
    found = f"{contacts} nodes in touch, {links} links"
    if contacts:
        return Finding("DHT", "ok", found)
    if config.network.is_local and not config.network.bootstrap:
        return Finding(
            "DHT", "warn", f"{found}: it is told of nobody", "write an address under network.bootstrap"
        )
    bad = [f"{seeds['url']}: {seeds['reason']}" for seeds in known["seeds"] if seeds["reason"]]
    fix = "check the addresses under network.bootstrap, and that UDP may leave this network"
    return Finding("DHT", "fail", "; ".join([found, *bad]), fix)


def _reachability(config: NodeConfig, known: Json) -> Finding:
    listen, check = config.network.listen, NETWORK[0]
    if listen is None:
        return Finding(check, "ok", "it takes no links, and needs none: it dials others")
    if config.network.is_local:
        return Finding(check, "ok", f"{listen}: for this machine alone, as its config says")
    open_it = f"pass on port {listen.port}, TCP and UDP, and TCP of the next one, to this machine"
    if known["seen_at"] is None:
        found = "nobody has confirmed yet at which address they see this node"
        return Finding(check, "warn", found, f"wait until it knows two others; behind a router, {open_it}")
    seen = Address.parse(known["seen_at"])
    own = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses}
    if seen.host in own and seen.port == listen.port:
        return Finding(check, "ok", f"others see it at {seen}, which is this machine's own address")
    found = f"others see it at {seen}, which is a router's: whether that passes on what comes cannot be told from here"
    return Finding(check, "warn", found, f"in the router, {open_it}")
