"""Waiting for what another process or thread does."""

import asyncio
import time
from collections.abc import Callable

import psutil


async def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Return once `condition` holds; TimeoutError if it does not in time. Others in this loop go on meanwhile."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Return once `condition` holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about within {seconds:g} s"
        time.sleep(0.01)


def until_asleep(pid: int) -> None:
    """Return once a process waits for something.

    A signal that comes as Python is about to wait is not seen before that wait is over: a person presses the key
    again, a test does not.
    """
    process = psutil.Process(pid)
    until(lambda: process.status() == psutil.STATUS_SLEEPING)
