"""How a node is told to read its config again or to leave, and how it leaves: what is under way has a while to end."""

import logging
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from intelnav.chain.entry import Entry
from intelnav.chain.hop import HopService
from intelnav.controller.loop import Controller
from intelnav.steering import Steering

log = logging.getLogger("intelnav.node")

DRAIN_SECONDS = 30.0
# How often it is said how far it is, if nothing else changes.
TELL_SECONDS = 5.0
_LOOK_SECONDS = 0.05
# What cannot be stopped, in a thread, has so long at the very end.
_LAST_SECONDS = 2.0


async def heed_signals(
    node: anyio.CancelScope,
    reread: Callable[[], Coroutine[Any, Any, None]],
    drain: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """SIGHUP calls `reread`; SIGTERM or SIGINT calls `drain` and then cancels `node`, the second one at once."""
    stopping = False
    async with anyio.create_task_group() as tasks:

        async def leave() -> None:
            await drain()
            node.cancel()

        with anyio.open_signal_receiver(signal.SIGHUP, signal.SIGTERM, signal.SIGINT) as signals:
            async for received in signals:
                name = signal.Signals(received).name
                if received == signal.SIGHUP:
                    log.info("%s: the config is read again", name)
                    tasks.start_soon(reread)
                elif stopping:
                    log.info("%s: stopping at once", name)
                    node.cancel()
                else:
                    log.info("%s: stopping", name)
                    stopping = True
                    tasks.start_soon(leave)


async def drain(entry: Entry, hops: HopService, controller: Controller, steering: Steering) -> None:
    """Take nothing new, and return once nothing is under way; after the grace, of 30 s at most, it is ended."""
    grace = min(DRAIN_SECONDS, controller.desired.grace)
    end = time.monotonic() + grace
    entry.close("this node is stopping: ask another one, or ask again once it is back")
    hops.refuse_all()
    steering.stopping = True
    while entry.opening and time.monotonic() < end:  # noqa: ASYNC110 - nobody tells of it
        await anyio.sleep(_LOOK_SECONDS)
    steering.stop(grace)
    told, at = 0, 0.0
    while (left := len(entry) + len(hops)) and (now := time.monotonic()) < end:
        if left != told or now - at >= TELL_SECONDS:
            told, at = left, now
            log.info("draining: %d answer%s left, %.0f s at most", left, "s" * (left != 1), end - now)
        await anyio.sleep(_LOOK_SECONDS)
    with anyio.move_on_after(_LAST_SECONDS):
        await controller.emptied()
