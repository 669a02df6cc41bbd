"""Tells systemd that the node is up, what it does, and that its event loop still turns. Nothing without systemd."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import anyio

log = logging.getLogger("intelnav.node")

# How often it is looked whether the status is another one.
LOOK_SECONDS = 1.0


class Notifier:
    """The socket that systemd listens on for this process, if the variables name one; see sd_notify(3)."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog = _watchdog_seconds(environ) if self._address else None
        self._failed = False

    async def attend(self, status: Callable[[], str]) -> None:
        """Say READY, then whatever `status` comes to be, and WATCHDOG twice in the time that systemd gives.

        It runs in the loop that does the node's work: if that hangs, systemd hears nothing and restarts the node.
        """
        if not self._address:
            return
        told = status()
        self.tell("READY=1", f"STATUS={told}")
        half = self._watchdog / 2 if self._watchdog is not None else LOOK_SECONDS
        while True:
            if self._watchdog is not None:
                self.tell("WATCHDOG=1")
            due = time.monotonic() + half
            while (left := due - time.monotonic()) > 0:
                await anyio.sleep(min(LOOK_SECONDS, left))
                if (now := status()) != told:
                    told = now
                    self.tell(f"STATUS={told}")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Within, systemd shows the node as reloading."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self.tell("READY=1")

    def tell(self, *assignments: str) -> None:
        """Send `KEY=value` lines, without ever waiting or failing: systemd acts by itself if they do not arrive."""
        if not self._address:
            return
        # A leading @ stands for the zero byte of a name that is not in the file system.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(" ".join(each.splitlines()) for each in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(errors="replace"), address)
        except (OSError, ValueError) as error:
            if not self._failed:
                log.warning(
                    "NOTIFY_SOCKET %s: %s; systemd is not told how this node is", self._address, error
                )
            self._failed = True


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """The longest silence that systemd bears from this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    written = environ.get("WATCHDOG_USEC", "")
    if written.isascii() and written.isdecimal() and int(written) > 0:
        return int(written) / 1e6
    if written:
        log.warning("WATCHDOG_USEC=%r is no number of microseconds: there is no watchdog", written)
    return None
