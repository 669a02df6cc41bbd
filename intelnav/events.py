"""What happened in this node, for those who ask later and those who wait."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Literal

import anyio

from intelnav.api.control import Event

KEPT = 1000


class Events:
    """The last 1,000 events, numbered from 1 on."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._last = 0
        self._more = anyio.Event()
        self._closed = False

    def add(
        self,
        kind: Literal["config", "slice", "node"],
        message: str,
        *,
        model: str | None = None,
        layers: str | None = None,
        state: str | None = None,
    ) -> None:
        """Note that something happened now."""
        self._last += 1
        self._kept.append(Event(self._last, time.time(), kind, message, model, layers, state))
        self._wake()

    def after(self, seq: int) -> Sequence[Event]:
        """Those that are kept and have a higher number, oldest first."""
        return [event for event in self._kept if event.seq > seq]

    async def next(self, after: int) -> None:
        """Return once there is one with a higher number, or there will be none."""
        while self._last <= after and not self._closed:
            await self._more.wait()

    def close(self) -> None:
        """Nothing more will happen."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = anyio.Event()
