"""Fetching a slice: only what its layers need, from several sources at once, each piece believed by its hash alone."""

import errno
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread
from blake3 import blake3

from intelnav.domain.errors import ContentError, IntelNavError, StoreFull
from intelnav.domain.slice import LayerRange
from intelnav.net.pace import Pace
from intelnav.net.progress import Progress
from intelnav.net.ranges import Busy, Missing, SourceError
from intelnav.net.sources import Source
from intelnav.store.blobs import PartialSlice, Store
from intelnav.store.cid import cid_of
from intelnav.store.manifest import Blob, Manifest, kv_blobs, slice_bytes

# Requests of one source under way.
REQUESTS = 2
# Pieces that one request asks for at most.
RUN = 16
# A busy source is asked again so often before it is given up.
PATIENCE = 20

Found = TypeVar("Found")


class FetchFailed(IntelNavError):
    """No source brought what is wanted; the message has each with its reason. What came is kept for the next try."""

    code = "no_source"


@dataclass(frozen=True, slots=True)
class _Run:
    """Pieces of one blob that follow each other: `first` up to, but not including, `last`."""

    blob: Blob
    first: int
    last: int


async def fetch_manifest(cid: str, sources: Sequence[Source], progress: Progress) -> Manifest:
    """The manifest with this CID, from the first source that has it. Raises FetchFailed."""

    async def ask(source: Source) -> Manifest:
        manifest = Manifest.from_bytes(await source.manifest(cid))
        if manifest.cid != cid:
            raise ContentError(f"sent the manifest of another model, {manifest.cid}")
        return manifest

    return await _from_any(f"the manifest of {cid}", sources, progress, ask)


async def fetch_slice(
    store: Store,
    manifest: Manifest,
    layers: LayerRange,
    sources: Sequence[Source],
    progress: Progress,
    *,
    pace: Pace | None = None,
    keep: Collection[tuple[str, LayerRange]] = (),
) -> Path:
    """The file of a slice in the store, after all that is missing of it was copied or fetched.

    What comes over the network keeps to `pace`. Slices that are not in `keep` may give way. Raises FetchFailed if no
    source is left, StoreFull if there is no room, ContentError if the manifest contradicts itself. When it is
    cancelled, or fails, what was verified stays for the next try.
    """
    kept = {*keep, (manifest.cid, layers)}
    pace = pace or Pace(None)
    try:
        await to_thread.run_sync(store.make_room, slice_bytes(manifest, layers), kept)
        for blob in kv_blobs(manifest, layers):
            if await to_thread.run_sync(store.blob, blob) is None:
                data = await _small(blob, sources, progress, pace)
                await to_thread.run_sync(store.put_blob, blob, data)
        partial = await to_thread.run_sync(store.begin, manifest, layers)
        await to_thread.run_sync(_copy, store, partial)
        progress.total, progress.done, progress.copied = partial.total, partial.done, partial.done
        await _Fetch(partial, sources, progress, pace).run()
        try:
            return await to_thread.run_sync(partial.finish)
        except ContentError:
            await to_thread.run_sync(partial.discard)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"the disk is full: layers {layers} of {manifest.name} want {slice_bytes(manifest, layers)} bytes; "
                "make room, and the fetch goes on by itself"
            ) from error
        raise


async def _from_any(
    what: str, sources: Sequence[Source], progress: Progress, ask: Callable[[Source], Awaitable[Found]]
) -> Found:
    """What the first source gives that can give it."""
    reasons = []
    for source in sources:
        for _ in range(PATIENCE):
            try:
                return await ask(source)
            except Missing:
                reasons.append(f"{source.name}: does not have it")
            except Busy as busy:
                await anyio.sleep(busy.seconds)
                continue
            except (SourceError, ContentError) as error:
                progress.drop(source.name, str(error))
                reasons.append(f"{source.name}: {error}")
            break
        else:
            reasons.append(f"{source.name}: has no time")
    raise FetchFailed(f"{what} cannot be had: {'; '.join(reasons) or 'no source is known'}")


async def _small(blob: Blob, sources: Sequence[Source], progress: Progress, pace: Pace) -> bytes:
    """A whole blob, in memory and verified piece by piece."""

    async def ask(source: Source) -> bytes:
        data = bytearray()
        async with aclosing(source.read(blob, 0, blob.size)) as parts:
            async for part in parts:
                data += part
                await pace.keep(len(part))
        if cid_of(blake3(data).digest()) != blob.cid:
            raise ContentError(f"sent other bytes than those of {blob.cid}")
        return bytes(data)

    return await _from_any(f"metadata {blob.cid}", sources, progress, ask)


def _copy(store: Store, partial: PartialSlice) -> None:
    """Take what this machine has already, in other slices or in a file of the user's; it is checked like all else."""
    for blob, index in partial.missing():
        located = store.locate(blob.cid)
        if located is not None:
            try:
                partial.write(blob, index, b"".join(located.read(*blob.bounds(index))))
            except ContentError:
                # Somebody changed that file. The piece is fetched like any other.
                continue


@dataclass
class _Fetch:
    """The pieces that are missing, and who is asked for which."""

    partial: PartialSlice
    sources: Sequence[Source]
    progress: Progress
    pace: Pace
    _waiting: deque[_Run] = field(default_factory=deque)
    _under_way: int = 0
    _lacks: dict[str, set[str]] = field(default_factory=dict)
    _dropped: dict[str, str] = field(default_factory=dict)
    _changed: anyio.Event = field(default_factory=anyio.Event)
    _disk: anyio.Lock = field(default_factory=anyio.Lock)
    _failure: OSError | None = None

    async def run(self) -> None:
        """Return once no piece is missing; FetchFailed if nobody is left to ask."""
        self._waiting.extend(_runs(self.partial.missing(), max(1, REQUESTS * len(self.sources))))
        async with anyio.create_task_group() as tasks:
            for source in self.sources:
                for _ in range(REQUESTS):
                    tasks.start_soon(self._ask, source, tasks.cancel_scope)
        if self._failure is not None:
            raise self._failure
        if self._waiting:
            reasons = [
                f"{source.name}: {self._dropped.get(source.name, 'does not have all of it')}"
                for source in self.sources
            ]
            raise FetchFailed(
                f"{self.progress.done} of {self.progress.total} bytes are here, and nobody brings the rest: "
                + ("; ".join(dict.fromkeys(reasons)) or "no source is known")
            )

    async def _ask(self, source: Source, all_asks: anyio.CancelScope) -> None:
        """Ask one source for one run after the other, until nothing is left for it to bring."""
        patience = PATIENCE
        while (run := await self._next(source)) is not None:
            self._under_way += 1
            at = [run.first]
            try:
                await self._bring(source, run, at)
            except Missing:
                self._lacks.setdefault(source.name, set()).add(run.blob.cid)
            except Busy as busy:
                patience -= 1
                if not patience:
                    self._drop(source, "has no time")
                await anyio.sleep(busy.seconds)
            except (SourceError, ContentError) as error:
                self._drop(source, str(error))
            except OSError as error:
                # Our own disk: no other source would fare better.
                self._failure = error
                all_asks.cancel()
            finally:
                self._under_way -= 1
                if at[0] < run.last:
                    self._waiting.appendleft(_Run(run.blob, at[0], run.last))
                self._wake()

    async def _next(self, source: Source) -> _Run | None:
        """The next run that this source may have; None once it has nothing more to bring."""
        while source.name not in self._dropped:
            lacks = self._lacks.get(source.name, set())
            for run in self._waiting:
                if run.blob.cid not in lacks:
                    self._waiting.remove(run)
                    return run
            if not self._under_way:
                return None
            # Another source may fail, and leave its run.
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
        if source.name not in self._dropped:
            self._dropped[source.name] = reason
            self.progress.drop(source.name, reason)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


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
