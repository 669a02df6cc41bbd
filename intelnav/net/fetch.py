"""Fetching a slice: only what its layers need, from this machine, from peers and from origins."""

import errno
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Literal, TypeVar

import anyio
from anyio import from_thread, to_thread
from blake3 import blake3

from intelnav.domain.errors import ContentError, StoreFull
from intelnav.domain.slice import LayerRange
from intelnav.net.gather import PATIENCE, Gathering, reasons
from intelnav.net.gather import FetchFailed as FetchFailed
from intelnav.net.pace import Pace
from intelnav.net.progress import Progress
from intelnav.net.ranges import Busy, Missing, SourceError
from intelnav.net.sources import Source
from intelnav.store.blobs import Located, PartialSlice, Store
from intelnav.store.cid import cid_of
from intelnav.store.manifest import Blob, Manifest, kv_blobs, slice_bytes

Found = TypeVar("Found")


async def fetch_manifest(cid: str, sources: Sequence[Source], progress: Progress) -> Manifest:
    """The manifest with this CID, from the first source that has it. Raises FetchFailed."""

    async def ask(source: Source) -> Manifest:
        manifest = Manifest.from_bytes(await source.manifest(cid))
        if manifest.cid != cid:
            raise ContentError(f"sent the manifest of another model, {manifest.cid}")
        return manifest

    return await _from_any(f"the manifest of {cid}", _distinct(sources), {}, progress, ask)


async def fetch_metadata(
    store: Store, manifest: Manifest, sources: Sequence[Source], progress: Progress, pace: Pace
) -> bytes:
    """The metadata of a model, which say what its layers take; kept in the store. Raises as `fetch_slice` does."""
    data = await to_thread.run_sync(store.blob, manifest.metadata)
    if data is None:
        data = await _small(manifest.metadata, _distinct(sources), {}, progress, pace)
        await to_thread.run_sync(store.put_blob, manifest.metadata, data)
    return data


async def fetch_slice(
    store: Store,
    manifest: Manifest,
    layers: LayerRange,
    sources: Sequence[Source],
    progress: Progress,
    *,
    pace: Pace | None = None,
    keep: Collection[tuple[str, LayerRange]] = (),
    stage: Callable[[Literal["fetching", "stitching"]], None] = lambda _: None,
) -> Path:
    """The file of a slice in the store, after all that is missing of it was copied or fetched.

    What comes over the network keeps to `pace`; `stage` is told when bytes are fetched, and when they are put together
    out of what is here. Slices that are not in `keep` may give way. Raises FetchFailed if no
    source is left, StoreFull if there is no room, ContentError if the manifest contradicts itself. When it is
    cancelled, or fails, what was verified stays for the next try.
    """
    kept = {*keep, (manifest.cid, layers)}
    pace = pace or Pace(None)
    sources, dropped = _distinct(sources), dict[str, str]()
    promised: Path | None = None
    try:
        for blob in kv_blobs(manifest, layers):
            if await to_thread.run_sync(store.blob, blob) is None:
                await to_thread.run_sync(store.make_room, blob.size, kept)
                data = await _small(blob, sources, dropped, progress, pace)
                await to_thread.run_sync(store.put_blob, blob, data)
        partial = await to_thread.run_sync(store.begin, manifest, layers)
        progress.total, progress.done, progress.copied = partial.total, partial.done, partial.done
        promised = partial.path
        await to_thread.run_sync(store.promise, promised, slice_bytes(manifest, layers), kept)
        stage("stitching")
        await to_thread.run_sync(_copy, store, partial, progress)
        if partial.done < partial.total:
            stage("fetching")
            await Gathering(partial, sources, dropped, progress, pace).run()
            stage("stitching")
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
    finally:
        if promised is not None:
            store.written(promised)


async def _from_any(
    what: str,
    sources: Sequence[Source],
    dropped: dict[str, str],
    progress: Progress,
    ask: Callable[[Source], Awaitable[Found]],
) -> Found:
    """What the first source gives that can give it. Those that do what none may are added to `dropped`."""
    found = dict(dropped)
    left = [source for source in sources if source.name not in dropped]
    for _ in range(PATIENCE):
        waits = []
        for source in tuple(left):
            try:
                return await ask(source)
            except Busy as busy:
                found[source.name] = "has no time"
                waits.append(busy.seconds)
                continue
            except Missing:
                found[source.name] = "does not have it"
            except (SourceError, ContentError) as error:
                found[source.name] = dropped[source.name] = str(error)
                progress.drop(source.name, str(error))
            left.remove(source)
        if not waits:
            break
        await anyio.sleep(min(waits))
    raise FetchFailed(f"{what} cannot be had: {reasons(sources, found, 'was not asked')}")


async def _small(
    blob: Blob, sources: Sequence[Source], dropped: dict[str, str], progress: Progress, pace: Pace
) -> bytes:
    """A whole blob, in memory and verified."""

    async def ask(source: Source) -> bytes:
        data = bytearray()
        async with aclosing(source.read(blob, 0, blob.size)) as parts:
            async for part in parts:
                data += part
                await pace.keep(len(part))
        if cid_of(blake3(data).digest()) != blob.cid:
            raise ContentError(f"sent other bytes than those of {blob.cid}")
        return bytes(data)

    return await _from_any(f"metadata {blob.cid}", sources, dropped, progress, ask)


def _copy(store: Store, partial: PartialSlice, progress: Progress) -> None:
    """Take what this machine has already, in other slices or in a file of the user's; it is checked like all else."""
    places: dict[str, Located | None] = {}
    for blob, index in partial.missing():
        from_thread.check_cancelled()
        if blob.cid not in places:
            places[blob.cid] = store.locate(blob.cid)
        if (data := _read(places[blob.cid], *blob.bounds(index))) is None:
            continue
        try:
            partial.write(blob, index, data)
        except ContentError:
            # Somebody changed that file. The piece is fetched like any other.
            continue
        progress.done = progress.copied = partial.done


def _read(located: Located | None, start: int, end: int) -> bytes | None:
    try:
        return None if located is None else b"".join(located.read(start, end))
    except (OSError, ContentError):
        # The file is gone by now, or became shorter.
        return None


def _distinct(sources: Sequence[Source]) -> list[Source]:
    return list({source.name: source for source in sources}.values())
