"""What is removed from a store to make room."""

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from intelnav.domain.errors import StoreFull
from intelnav.domain.slice import LayerRange
from intelnav.store.folder import Folder, on_disk
from intelnav.store.manifest import Manifest, kv_blobs

Keep = Collection[tuple[str, LayerRange]]
Manifests = Callable[[str], Manifest | None]


def to_remove(folder: Folder, manifest: Manifests, quota: int | None, need: int, keep: Keep) -> list[Path]:
    """The files without which `need` more bytes fit, those that were not used for the longest time first.

    Slices in `keep` are not among them, nor the loose blobs that a slice needs. `quota` is what the store may take,
    in bytes. Raises StoreFull if it cannot be done.
    """
    used, free = folder.used(), shutil.disk_usage(folder.root).free
    room = free if quota is None else min(free, quota - used)
    chosen: list[Path] = []
    removable = sorted(_removable(folder, manifest, keep), key=lambda path: path.stat().st_mtime_ns)
    for path in removable:
        if room >= need:
            break
        chosen.append(path)
        room += on_disk(path)
    if room >= need:
        return chosen
    allowed = "without a quota" if quota is None else f"of {quota} allowed"
    raise StoreFull(
        f"{need} more bytes do not fit: the store at {folder.root} takes {used} bytes {allowed}, its disk has "
        f"{free} bytes free, and {sum(map(on_disk, removable))} bytes could be removed; raise store.max_bytes, free "
        "the disk, or host fewer layers"
    )


def files_of(
    folder: Folder, manifests: Iterable[Manifest], model: str, layers: LayerRange | None
) -> list[Path]:
    """The files of one slice of a model, whole or not; with None all of a model, but for blobs that others share."""
    held = [*folder.slices(), *folder.parts()]
    found = [path for cid, covered, path in held if cid == model and layers in (None, covered)]
    if layers is None:
        own, others = set[str](), set[str]()
        for manifest in manifests:
            kept = own if manifest.cid == model else others
            kept |= {manifest.metadata.cid, manifest.tokenizer.cid}
        found += [*map(folder.blob, sorted(own - others)), folder.manifest(model), folder.file(model)]
    return found


def _removable(folder: Folder, manifest: Manifests, keep: Keep) -> Iterator[Path]:
    wanted = set(keep)
    whole = {(cid, layers): path for cid, layers, path in folder.slices()}
    parts = {(cid, layers): path for cid, layers, path in folder.parts()}
    needed: set[str] = set()
    for cid, layers in wanted | whole.keys() | parts.keys():
        if (known := manifest(cid)) is not None:
            # A whole slice has the tokenizer in itself.
            blobs = kv_blobs(known, layers)
            needed |= {blob.cid for blob in (blobs[:1] if (cid, layers) in whole else blobs)}
    for held in (whole, parts):
        yield from (path for key, path in held.items() if key not in wanted)
    yield from (folder.blob(cid) for cid in folder.blobs() if cid not in needed)
