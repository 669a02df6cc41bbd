"""How a fetch is going, for whoever watches it."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

# Over how many seconds the rate is an average.
RATE_SECONDS = 5.0


@dataclass(slots=True)
class Progress:
    """Figures of one fetch, written by it and read by anyone at any time.

    `done` of `total` bytes are here, of which `copied` were on this machine before; `sources` has the bytes that each
    source brought, `dropped` why a source was given up.
    """

    total: int = 0
    done: int = 0
    copied: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def received(self, source: str, size: int) -> None:
        """Count verified bytes from a source."""
        self.done += size
        self.sources[source] = self.sources.get(source, 0) + size
        self._recent.append((time.monotonic(), size))
        self._forget()

    def drop(self, source: str, reason: str) -> None:
        """Note that a source is not asked any more."""
        self.dropped.append((source, reason))

    @property
    def rate(self) -> float:
        """Bytes a second over the last seconds."""
        self._forget()
        return sum(size for _, size in tuple(self._recent)) / RATE_SECONDS

    def as_json(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {
            "total_bytes": self.total,
            "done_bytes": self.done,
            "copied_bytes": self.copied,
            "bytes_per_second": round(self.rate),
            "sources": dict(self.sources),
            "dropped": [{"source": source, "reason": reason} for source, reason in self.dropped],
        }

    def _forget(self) -> None:
        oldest = time.monotonic() - RATE_SECONDS
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()
