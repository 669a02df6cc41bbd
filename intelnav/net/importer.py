"""Importing: a whole GGUF, from a file here or over HTTP, becomes a model that the store knows and gives out."""

import asyncio
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import httpx
from anyio import from_thread, to_thread
from blake3 import blake3

from intelnav import __version__
from intelnav.domain.errors import ConfigError, ContentError
from intelnav.domain.job import JobProgress
from intelnav.domain.model_ref import ModelRef, origin_url
from intelnav.domain.slice import LayerRange
from intelnav.net.download import Published, download
from intelnav.net.part import forget
from intelnav.store.architectures import rules_of
from intelnav.store.blobs import Store
from intelnav.store.catalog import CatalogEntry
from intelnav.store.durable import sync_folder
from intelnav.store.manifest import Manifest, manifest_of
from intelnav.store.model_file import describe
from intelnav.store.names import imported_file
from intelnav.store.pieces import CHUNK

STALE_SECONDS = 7 * 86_400


class UselessModel(ContentError):
    """A file that came whole, as it was published, and cannot be used: it will be no other the next time."""


async def import_model(
    store: Store,
    what: str,
    progress: JobProgress,
    *,
    entry: CatalogEntry | None = None,
    keep: Collection[tuple[str, LayerRange]] = (),
    rate: int | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Manifest:
    """Make the model at `what` known to the store: an absolute path, a URL or `hf://OWNER/REPO/FILE`.

    A file is hashed where it lies, and not copied. What comes over HTTP becomes a file of the store, at no more than
    `rate` bytes per second; slices that are not in `keep` may give way to it. `entry` is what the catalog says of it.
    Raises ConfigError for what is no such place, ContentError for what is not the model that it should be,
    DownloadFailed, StoreFull, OSError. When cancelled, what came over HTTP is kept for the next try.
    """
    if what.startswith("/"):
        return await _from_file(store, Path(what), entry, progress)
    try:
        ref = ModelRef.parse(what)
    except ValueError as error:
        raise ConfigError(f"{what[:200]}: {error}") from None
    url = origin_url(ref, environ)
    # Two at once would write one file; who comes second finds it there.
    async with store.coming.setdefault(url, asyncio.Lock()):
        known = await to_thread.run_sync(_of_origin, store, url)
        if known is not None:
            return known
        return await _from_origin(store, ref, url, entry, progress, keep, rate)


async def _from_file(store: Store, path: Path, entry: CatalogEntry | None, progress: JobProgress) -> Manifest:
    manifest = await to_thread.run_sync(store.known_file, path)
    if manifest is None:
        before = await to_thread.run_sync(path.stat) if await to_thread.run_sync(path.is_file) else None
        manifest = await to_thread.run_sync(_hashed, path, progress)
        after = await to_thread.run_sync(path.stat)
        if before is None or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ContentError(f"{path}: changed while it was read; import it again")
    _check(manifest, str(path), entry)
    await to_thread.run_sync(store.add_file, manifest, path, None)
    return manifest


async def _from_origin(
    store: Store,
    ref: ModelRef,
    url: str,
    entry: CatalogEntry | None,
    progress: JobProgress,
    keep: Collection[tuple[str, LayerRange]],
    rate: int | None,
) -> Manifest:
    part = store.root / "downloads" / f"{blake3(url.encode()).hexdigest()[:32]}.part"
    await to_thread.run_sync(_prepare, part)
    published = Published(entry.size, entry.sha256) if entry is not None else Published()
    headers = {"User-Agent": f"intelnav/{__version__}"}
    try:
        async with httpx.AsyncClient(headers=headers) as client:
            await download(
                client, url, part, published, progress, lambda size: store.promise(part, size, keep), rate
            )
    finally:
        store.written(part)
    try:
        manifest = await to_thread.run_sync(_hashed, part, progress)
        _check(manifest, ref.value, entry)
    except ContentError as error:
        await to_thread.run_sync(forget, part)
        raise UselessModel(str(error).replace(str(part), ref.value)) from None
    await to_thread.run_sync(_keep, store, manifest, part, url)
    return manifest


def _of_origin(store: Store, origin: str) -> Manifest | None:
    """The model that was imported from there before, if its file is still here."""
    for manifest in store.manifests():
        if origin in store.origins(manifest.cid) and store.file_of(manifest.cid) is not None:
            return manifest
    return None


def _prepare(part: Path) -> None:
    """Make the folder of downloads, and remove what nobody went on with for a week."""
    part.parent.mkdir(exist_ok=True)
    for other in part.parent.glob("*.part"):
        if other != part and time.time() - other.stat().st_mtime > STALE_SECONDS:
            forget(other)


def _hashed(path: Path, progress: JobProgress) -> Manifest:
    """The manifest of a file. In a worker thread: given up as soon as its task is cancelled."""
    model = describe(path)
    size = path.stat().st_size
    # The file is read in chunks that end with each tensor.
    chunks = sum(-(-tensor.size // CHUNK) for tensor in model.header.tensors)
    taken = 0

    def between() -> None:
        nonlocal taken
        from_thread.check_cancelled()
        taken += 1
        progress.done = min(size, size * taken // max(chunks, 1))

    progress.enter("hashing", size)
    manifest = manifest_of(path, between)
    progress.done = size
    return manifest


def _check(manifest: Manifest, what: str, entry: CatalogEntry | None) -> None:
    """Raise ContentError for a model that could not be used, or that is not the catalog's."""
    rules_of(manifest.architecture)
    if entry is None:
        return
    for key, wanted, found in (
        ("architecture", entry.architecture, manifest.architecture),
        ("blocks", entry.blocks, manifest.blocks),
        ("size", entry.size, manifest.file.size),
        ("sha256", entry.sha256, manifest.file.sha256),
        ("cid", entry.cid, manifest.cid),
    ):
        if wanted is not None and wanted != found:
            raise ContentError(
                f"{what}: is not the catalog's {entry.name}: its {key} is {found}, where {wanted} is expected"
            )


def _keep(store: Store, manifest: Manifest, part: Path, origin: str) -> None:
    """Make the part a file of the store; if the model's file is here already, that one stays."""
    if store.file_of(manifest.cid) is None:
        target = imported_file(store, manifest.cid)
        part.replace(target)
        sync_folder(target.parent)
        store.add_file(manifest, target, origin)
    else:
        store.add_origin(manifest.cid, origin)
    forget(part)
