"""The pieces of a slice, gathered from several sources at once; each is believed by its hash alone."""

from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio
from anyio import to_thread

from intelnav.domain.errors import ContentError, IntelNavError
from intelnav.net.pace import Pace
from intelnav.net.progress import Progress
from intelnav.net.ranges import Busy, Missing, SourceError
from intelnav.net.sources import Source
from intelnav.store.blobs import PartialSlice
from intelnav.store.manifest import Blob

# Requests of one source under way.
REQUESTS = 2
# Pieces that one request asks for at most.
RUN = 16
# So often in a row a busy source is asked again before it is given up.
PATIENCE = 20


class FetchFailed(IntelNavError):
    """No source brought what is wanted; the message has each with its reason. What came is kept for the next try."""

    code = "no_source"


@dataclass(frozen=True, slots=True)
class _Run:
    """Pieces of one blob that follow each other: `first` up to, but not including, `last`."""

    blob: Blob
    first: int
    last: int


@dataclass
class Gathering:
    """The pieces that are missing of a slice, and who is asked for which. Sources in `dropped` are not asked."""

    partial: PartialSlice
    sources: Sequence[Source]
    dropped: dict[str, str]
    progress: Progress
    pace: Pace
    _waiting: deque[_Run] = field(default_factory=deque)
    _under_way: int = 0
    _lacks: dict[str, set[str]] = field(default_factory=dict)
    _asks: dict[str, anyio.CancelScope] = field(default_factory=dict)
    _changed: anyio.Event = field(default_factory=anyio.Event)
    _disk: anyio.Lock = field(default_factory=anyio.Lock)
    _failure: OSError | None = None

    async def run(self) -> None:
        """Return once no piece is missing. Raises FetchFailed if nobody is left to ask, OSError for our own disk."""
        self._waiting.extend(_runs(self.partial.missing(), max(1, REQUESTS * len(self.sources))))
        async with anyio.create_task_group() as tasks:
            for source in self.sources:
                self._asks[source.name] = anyio.CancelScope()
                tasks.start_soon(self._attend, source, tasks.cancel_scope)
        if self._failure is not None:
            raise self._failure
        if self._waiting:
            raise FetchFailed(
                f"{self.progress.done} of {self.progress.total} bytes are here, and nobody brings the rest: "
                + reasons(self.sources, self.dropped, "does not have all of it")
            )

    async def _attend(self, source: Source, everybody: anyio.CancelScope) -> None:
        """Ask one source until it has nothing more to bring, or is dropped."""
        with self._asks[source.name]:
            async with anyio.create_task_group() as asks:
                for _ in range(REQUESTS):
                    asks.start_soon(self._ask, source, everybody)

    async def _ask(self, source: Source, everybody: anyio.CancelScope) -> None:
        """Ask for one run after the other."""
        patience = PATIENCE
        while (run := await self._next(source)) is not None:
            wait = 0.0
            self._under_way += 1
            at = [run.first]
            try:
                await self._bring(source, run, at)
            except Missing:
                self._lacks.setdefault(source.name, set()).add(run.blob.cid)
            except Busy as busy:
                wait = busy.seconds
            except (SourceError, ContentError) as error:
                self._drop(source, str(error))
            except OSError as error:
                # Our own disk: no other source would fare better.
                self._failure = error
                everybody.cancel()
            finally:
                self._under_way -= 1
                if at[0] < run.last:
                    # For anybody, while a busy source is let alone.
                    self._waiting.appendleft(_Run(run.blob, at[0], run.last))
                self._wake()
            patience = patience - 1 if wait else PATIENCE
            if not patience:
                self._drop(source, "has no time")
            await anyio.sleep(wait)

    async def _next(self, source: Source) -> _Run | None:
        """The next run that this source may have; None once it has nothing more to bring."""
        while source.name not in self.dropped:
            lacks = self._lacks.get(source.name, set())
            for run in self._waiting:
                if run.blob.cid not in lacks:
                    self._waiting.remove(run)
                    return run
            if not self._under_way:
                return None
            # Another request may fail, and leave its run.
            await self._changed.wait()
        return None

    async def _bring(self, source: Source, run: _Run, at: list[int]) -> None:
        """Write each piece as it is whole; `at` holds the first that is not."""
        start, end = run.blob.bounds(run.first)[0], run.blob.bounds(run.last - 1)[1]
        held = bytearray()
        async with aclosing(source.read(run.blob, start, end)) as parts:
            async for part in parts:
                held += part
                await self.pace.keep(len(part))
                while at[0] < run.last and len(held) >= (size := _size(run.blob, at[0])):
                    piece = bytes(memoryview(held)[:size])
                    del held[:size]
                    async with self._disk:
                        await to_thread.run_sync(self.partial.write, run.blob, at[0], piece)
                    at[0] += 1
                    self.progress.received(source.name, size)

    def _drop(self, source: Source, reason: str) -> None:
        if source.name not in self.dropped:
            self.dropped[source.name] = reason
            self.progress.drop(source.name, reason)
            # Its other requests are worth no more than this one.
            self._asks[source.name].cancel()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def reasons(sources: Sequence[Source], known: dict[str, str], otherwise: str) -> str:
    """Why nobody brings it, source by source."""
    return "; ".join(f"{s.name}: {known.get(s.name, otherwise)}" for s in sources) or "no source is known"


def _size(blob: Blob, index: int) -> int:
    start, end = blob.bounds(index)
    return end - start


def _runs(missing: Sequence[tuple[Blob, int]], askers: int) -> list[_Run]:
    """The missing pieces in runs, short enough that each asker gets some."""
    longest = max(1, min(RUN, -(-len(missing) // askers)))
    runs: list[_Run] = []
    for blob, index in missing:
        last = runs[-1] if runs else None
        if last and last.blob.cid == blob.cid and last.last == index and index - last.first < longest:
            runs[-1] = _Run(blob, last.first, index + 1)
        else:
            runs.append(_Run(blob, index, index + 1))
    return runs
