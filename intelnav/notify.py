"""What the service manager is told of this node, by the protocol of sd_notify(3); nothing if none listens."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

log = logging.getLogger(__name__)

# How often it is looked whether the status has changed.
LOOK_SECONDS = 1.0
STATUS_CHARACTERS = 300


async def attend(status: Callable[[], str]) -> None:
    """Report READY, then the status whenever it changes and the watchdog's sign of life, until cancelled.

    It shares the loop of all that it vouches for: if the loop hangs, the signs end. `status` is one line for people.
    """
    if not _listens():
        return
    every = watchdog_seconds()
    turn = LOOK_SECONDS if every is None else min(LOOK_SECONDS, every)
    alive = 0.0
    told: str | None = None
    try:
        while True:
            lines, now, line = [], time.monotonic(), _one_line(status())
            if told is None:
                lines.append("READY=1")
            if line != told:
                lines.append(f"STATUS={line}")
            # A sign that is due within this turn would be late in the next one.
            if every is not None and now + turn > alive + every:
                lines.append("WATCHDOG=1")
            if lines and tell(*lines):
                told = line
                alive = now if "WATCHDOG=1" in lines else alive
            await anyio.sleep(turn)
    finally:
        stopping()


@contextmanager
def reloading() -> Iterator[None]:
    """While the config is read again."""
    tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        yield
    finally:
        tell("READY=1")


def stopping() -> None:
    """This node is about to leave."""
    tell("STOPPING=1")


def tell(*lines: str) -> bool:
    """Send these lines; whether the service manager has them. It never waits."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not _listens():
        return False
    # An abstract socket is written with an @.
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)
    except OSError as error:
        log.warning("the service manager at NOTIFY_SOCKET is not told %s: %s", lines[0], error)
        return False
    return True


def watchdog_seconds() -> float | None:
    """How often the watchdog wants a sign: twice within its time. None if it watches another process, or nothing."""
    written = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()) or not written:
        return None
    if not (written.isascii() and written.isdigit() and 0 < len(written) < 16 and int(written)):
        log.warning("WATCHDOG_USEC = %.40r: is no number of microseconds, and is left alone", written)
        return None
    return int(written) / 2e6


def _listens() -> bool:
    return os.environ.get("NOTIFY_SOCKET", "").startswith(("/", "@"))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:STATUS_CHARACTERS]
