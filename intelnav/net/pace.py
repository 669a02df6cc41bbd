"""A limit on how much comes over the network in a while."""

import time
from collections.abc import Callable

import anyio

# What may come at once after a pause, in seconds of the rate.
BURST_SECONDS = 0.25


class Pace:
    """Lets `rate` bytes through a second, None for as many as come, and counts them in `taken`.

    `rate` can be set at any time. `now` is a clock in seconds.
    """

    def __init__(self, rate: int | None, now: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._now = now
        self._free_at = now()
        self.taken = 0

    def owed(self, size: int) -> float:
        """Take `size` bytes; how many seconds to wait before any more are taken."""
        self.taken += size
        if self.rate is None:
            return 0.0
        now = self._now()
        self._free_at = max(self._free_at, now - BURST_SECONDS) + size / self.rate
        return max(0.0, self._free_at - now)

    async def keep(self, size: int) -> None:
        """Take `size` bytes, and wait as long as that many have to last."""
        if (seconds := self.owed(size)) > 0:
            await anyio.sleep(seconds)
