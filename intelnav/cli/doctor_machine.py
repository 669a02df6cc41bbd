"""Checks of `intelnav doctor` on the machine: what a node needs there, whether one runs or not."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import psutil

from intelnav import machine
from intelnav.cli.finding import Finding
from intelnav.cli.terminal import size_text
from intelnav.config import NodeConfig
from intelnav.domain.advert import Address

Json = dict[str, Any]

ENGINE_SECONDS = 60
CLOCK_SECONDS = 5.0
# Records in the DHT live for half an hour; a clock this far off does no harm yet.
CLOCK_OFF = 60.0
LEAST_MEMORY = 512 * 2**20


def python() -> Finding:
    """Python itself."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", "ok", f"{version}, {sys.executable}")


def engine(device: str) -> Finding:
    """Whether llama.cpp can be loaded, and offers the device of the config. In a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    fix = "pip install --force-reinstall --no-cache-dir llama-cpp-python==0.3.36"
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "intelnav.engine.llama", device],
            capture_output=True,
            text=True,
            timeout=ENGINE_SECONDS,
            env=environment,
        )
        report = json.loads(child.stdout)
    except subprocess.TimeoutExpired:
        return Finding("engine", "fail", f"llama.cpp is not loaded within {ENGINE_SECONDS} s", fix)
    except ValueError:
        said = child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        return Finding("engine", "fail", f"llama.cpp cannot be loaded: {said[0]}", fix)
    offered = ", ".join(f"{gpu['backend']} ({gpu['description']})" for gpu in report["gpus"]) or "no GPU"
    found = f"llama-cpp-python {report['version']}, CPU with {report['threads']} threads, {offered}"
    if report["problem"]:
        return Finding("engine", "fail", found, report["problem"])
    return Finding("engine", "ok", f"{found}; backend.device {device} is there")


def ports(config: NodeConfig, pid: int | None) -> Iterator[Finding]:
    """Whether what the node listens on is free, or held by the node itself, which is process `pid`."""
    held = _held(pid)
    for name, address, kinds in (
        ("network.listen", config.network.listen, (socket.SOCK_STREAM, socket.SOCK_DGRAM)),
        ("store.chunks", config.chunks, (socket.SOCK_STREAM,)),
        ("api.listen", config.api.listen, (socket.SOCK_STREAM,)),
    ):
        if address is None:
            yield Finding(name, "ok", "none")
            continue
        yield _port(name, address, [kind for kind in kinds if (kind, address.port) not in held], pid)


def memory(config: NodeConfig, status: Json | None) -> Finding:
    """Whether there is memory left, and what the slices take of it."""
    there = machine.memory()
    parts = [*status["slices"], *status["entry"]] if status is not None else []
    taken = sum(
        {(part["model"], part["layers"]): part.get("memory_estimate_bytes", 0) for part in parts}.values()
    )
    found = f"{size_text(there.available)} of {size_text(there.total)} are available"
    found += f"; loaded slices take about {size_text(taken)}" if parts else ""
    if there.available < LEAST_MEMORY:
        return Finding(
            "memory", "warn", found, "host fewer layers, or lower limits.sessions or limits.context"
        )
    if config.auto is not None and (config.auto.memory or 0) > there.total:
        return Finding("memory", "fail", found, f"write auto.memory below {size_text(there.total)}")
    return Finding("memory", "ok", found)


def clock(config: NodeConfig) -> Finding:
    """Whether the clock is right: by the servers of the seed lists, else by what the system says of it."""
    import httpx

    problems = []
    for seeds in config.network.seeds:
        try:
            answer = httpx.head(seeds.url, timeout=CLOCK_SECONDS)
            there = parsedate_to_datetime(answer.headers["date"]).timestamp()
        except (httpx.HTTPError, LookupError, ValueError, TypeError) as error:
            problems.append(f"{seeds.url}: {str(error) or type(error).__name__}")
            continue
        off = time.time() - there
        found = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} {httpx.URL(seeds.url).host}"
        if abs(off) > CLOCK_OFF:
            return Finding("clock", "fail", found, "set it: sudo timedatectl set-ntp true")
        return Finding("clock", "ok", found)
    why = "; ".join(problems) or "the config names no seed list whose server could be asked"
    if _kept_in_step():
        return Finding("clock", "ok", f"the system keeps it in step by NTP; not compared with anybody: {why}")
    found = f"could not be compared: {why}"
    return Finding("clock", "warn", found, "sudo timedatectl set-ntp true, or compare it by hand: date -u")


def systemd() -> Finding:
    """Whether a service manager is there that could keep the node running."""
    if Path("/run/systemd/system").is_dir():
        return Finding("systemd", "ok", "it runs here, and can keep a node running: intelnav service install")
    return Finding("systemd", "ok", "none: what starts this machine or container has to start the node, too")


def _held(pid: int | None) -> set[tuple[int, int]]:
    """What a process listens on: kind of socket and port."""
    if pid is None:
        return set()
    try:
        found = psutil.Process(pid).net_connections("inet")
    except psutil.Error:
        return set()
    return {(one.type, one.laddr.port) for one in found if one.laddr and not one.raddr}


def _port(name: str, address: Address, kinds: list[int], pid: int | None) -> Finding:
    """Whether sockets of these kinds can be bound; those that the node holds already are left out."""
    if not kinds:
        return Finding(name, "ok", f"{address}, held by the node that runs")
    for kind in kinds:
        word = "TCP" if kind == socket.SOCK_STREAM else "UDP"
        try:
            family, *_, place = socket.getaddrinfo(address.host, address.port, type=kind)[0]
            with socket.socket(family, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    # As the node does: a port whose last connections just ended is free.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                if kind == socket.SOCK_STREAM:
                    probe.listen()
        except OSError as error:
            return _refused(name, f"{word} {address}", error, address)
    running = " and not used, though a node runs" if pid is not None and address.port else ""
    return Finding(
        name,
        "warn" if running else "ok",
        f"{address} is free{running}",
        "restart the node" if running else "",
    )


def _refused(name: str, what: str, error: OSError, address: Address) -> Finding:
    if error.errno == errno.EADDRINUSE:
        find = f"ss -tulpn 'sport = :{address.port}'"
        return Finding(
            name,
            "fail",
            f"{what} is held by another program",
            f"end it ({find} shows it), or write another port",
        )
    if error.errno == errno.EACCES:
        return Finding(name, "fail", f"{what}: not allowed", f"write {name} with a port from 1024 on")
    if error.errno == errno.EADDRNOTAVAIL:
        return Finding(
            name, "fail", f"{what}: not an address of this machine", f"write 0.0.0.0:{address.port}"
        )
    return Finding(name, "fail", f"{what}: {error.strerror or error}", f"write another {name}")


def _kept_in_step() -> bool:
    """Whether systemd says that the clock is synchronised."""
    try:
        said = subprocess.run(
            ["timedatectl", "show", "--property=NTPSynchronized", "--value"],  # noqa: S607 - wherever it is
            capture_output=True,
            text=True,
            timeout=CLOCK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.returncode == 0 and said.stdout.strip() == "yes"
