"""The store: models, slices and what they are made from, in one folder that one process owns.

Whatever has a final name in it was verified before it got that name. Files are written in one step; only a slice takes
long, and what is there of it is hashed again by whoever goes on with it.
"""

import asyncio
import fcntl
import logging
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from blake3 import blake3

from intelnav.domain.errors import ConfigError, ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.cid import cid_of, is_cid
from intelnav.store.durable import write_file
from intelnav.store.extents import Extent as Extent
from intelnav.store.extents import Located as Located
from intelnav.store.extents import in_blob_file
from intelnav.store.faults import Fault as Fault
from intelnav.store.faults import fault_in_file, fault_in_slice, is_sound
from intelnav.store.folder import Folder, on_disk
from intelnav.store.index import BlobIndex
from intelnav.store.layout import SlicePlan, model_of, plan_slice
from intelnav.store.manifest import Blob, Manifest, kv_blobs
from intelnav.store.notes import Notes, OwnFile
from intelnav.store.partial import PartialSlice as PartialSlice
from intelnav.store.room import files_of, to_remove

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeldSlice:
    """A whole slice; `bytes` is what it takes of the disk."""

    model: str
    layers: LayerRange
    path: Path
    bytes: int


class Store:
    """One folder of verified content. All methods may block on the disk, and may be called from any thread."""

    def __init__(self, root: Path, max_bytes: int | None) -> None:
        self._folder = Folder(root)
        self._max_bytes = max_bytes
        # Two threads must not write the same file at once.
        self._guard = threading.RLock()
        # One import from each place at a time.
        self.coming: dict[str, asyncio.Lock] = {}
        self._notes = Notes(self._folder)
        self._known: dict[str, Manifest] = {}
        # What files that are being written will take in the end.
        self._promised: dict[Path, int] = {}
        self._faults: dict[tuple[str, LayerRange], str] = {}
        self._index = BlobIndex(self._folder, self.manifest, lambda cid: self._notes.of(cid).file)

    @classmethod
    @contextmanager
    def open(cls, root: Path, max_bytes: int | None) -> Iterator[Self]:
        """The store in `root`, made if need be, that holds at most `max_bytes`.

        Raises ConfigError if another process has it open, OSError if it cannot be written.
        """
        store = cls(root, max_bytes)
        root.mkdir(parents=True, exist_ok=True)
        with store._folder.lock.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                owner = lock.read(20).strip()
                raise ConfigError(
                    f"{root}: another process{f' ({owner})' if owner else ''} has this store open; stop it, or give "
                    "each its own data_dir"
                ) from None
            lock.truncate(0)
            lock.write(f"pid {os.getpid()}\n")
            lock.flush()
            store._folder.prepare()
            yield store

    @property
    def root(self) -> Path:
        """The folder that all of it lies in."""
        return self._folder.root

    # Manifests

    def manifests(self) -> list[Manifest]:
        """All manifests, by CID."""
        return [manifest for cid in self._folder.models() if (manifest := self.manifest(cid))]

    def manifest(self, cid: str) -> Manifest | None:
        """The manifest with this CID; None if it is not here or its file is damaged."""
        if not is_cid(cid):
            return None
        if cid not in self._known:
            try:
                manifest = Manifest.from_bytes(self._folder.manifest(cid).read_bytes())
            except FileNotFoundError:
                return None
            except ContentError as error:
                log.warning("the manifest %s is damaged: %s", cid, error)
                return None
            if manifest.cid != cid:
                log.warning("the manifest %s is damaged: it is that of %s", cid, manifest.cid)
                return None
            self._known[cid] = manifest
        return self._known[cid]

    def add_manifest(self, m: Manifest) -> None:
        """Keep a manifest."""
        with self._guard:
            if self.manifest(m.cid) is None:
                write_file(self._folder.manifest(m.cid), m.to_bytes())
                self._known[m.cid] = m
                self._index.changed()

    # Files of the user, and origins

    def add_file(self, m: Manifest, path: Path, origin: str | None) -> None:
        """Keep in mind that the file at `path`, from which `m` was just made, holds all of the model.

        Raises ContentError if the file has another size or `origin` is no URL, OSError if the file is gone.
        """
        file = OwnFile.at(path)
        if file.size != m.file.size:
            raise ContentError(f"{path} has {file.size} bytes, its manifest says {m.file.size}")
        with self._guard:
            note = replace(self._notes.of(m.cid), file=file)
            if origin is not None:
                note = note.with_origin(origin)
            self.add_manifest(m)
            self._notes.write(m.cid, note)
            self._index.changed()

    def file_of(self, cid: str) -> Path | None:
        """The user's whole GGUF of a model; None if there is none, or it is gone or changed."""
        file = self._notes.of(cid).file
        return file.path if file and file.unchanged() else None

    def known_file(self, path: Path) -> Manifest | None:
        """The manifest of a file that was hashed before and did not change since."""
        try:
            file = OwnFile.at(path)
        except OSError:
            return None
        return next((known for cid in self._notes.with_file(file) if (known := self.manifest(cid))), None)

    def origins(self, cid: str) -> list[str]:
        """The URLs that a model can be had from, the newest first."""
        return list(reversed(self._notes.of(cid).origins))

    def add_origin(self, cid: str, url: str) -> None:
        """Keep in mind that a model can be had from `url`; ContentError if that is no URL or `cid` no CID."""
        with self._guard:
            self._notes.write(cid, self._notes.of(cid).with_origin(url))

    # Blobs

    def put_blob(self, blob: Blob, data: bytes) -> None:
        """Keep a small blob as a file of its own; ContentError if `data` are not its bytes."""
        if len(data) != blob.size or cid_of(blake3(data).digest()) != blob.cid:
            raise ContentError(f"{len(data)} bytes are not {blob.cid}, which has {blob.size}")
        with self._guard:
            if self.blob(blob) is None:
                write_file(self._folder.blob(blob.cid), data)

    def blob(self, blob: Blob) -> bytes | None:
        """The bytes of a small blob, wherever they lie; None if they are not here or damaged."""
        for located in self._index.places(blob.cid):
            try:
                data = b"".join(located.read(0, located.size))
            except (OSError, ContentError):
                continue
            if len(data) == blob.size and cid_of(blake3(data).digest()) == blob.cid:
                return data
        return None

    def locate(self, blob_cid: str) -> Located | None:
        """Where the bytes of a blob lie that was verified when it came; None if it is not here."""
        return next(iter(self._index.places(blob_cid)), None)

    # Slices

    def slice(self, cid: str, layers: LayerRange) -> Path | None:
        """The file of a whole slice, which thereby counts as used now; None if it is not here."""
        if not is_cid(cid):
            return None
        path = self._folder.slice(cid, layers)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def slices(self) -> list[HeldSlice]:
        """All whole slices."""
        return [HeldSlice(cid, layers, path, on_disk(path)) for cid, layers, path in self._folder.slices()]

    def begin(self, m: Manifest, layers: LayerRange) -> PartialSlice:
        """Start to put a slice together, or go on where an earlier process stopped.

        Raises ContentError if its key-value blobs are not here, or the model cannot be cut so.
        """
        plan = self._plan(m, layers)
        self.add_manifest(m)
        with self._guard:
            # They cannot be had from a slice, and a file of the user may go away.
            path, metadata = self._folder.blob(m.metadata.cid), self._content(m.metadata)
            if not path.exists() or path.read_bytes() != metadata:
                write_file(path, metadata)
        blobs = {entry.bundle.name: entry.blob for entry in m.bundles}
        part, target = self._folder.part(m.cid, layers), self._folder.slice(m.cid, layers)

        def finished() -> None:
            self._faults.pop((m.cid, layers), None)
            self._index.changed()
            for blob in kv_blobs(m, layers)[1:]:
                # The slice has it now.
                self._folder.blob(blob.cid).unlink(missing_ok=True)

        return PartialSlice(plan, blobs, part, target, finished)

    def _plan(self, m: Manifest, layers: LayerRange) -> SlicePlan:
        metadata, *tokenizer = (self._content(blob) for blob in kv_blobs(m, layers))
        return plan_slice(model_of(m, metadata, b"".join(tokenizer)), layers, m.cid)

    def _content(self, blob: Blob) -> bytes:
        data = self.blob(blob)
        if data is None:
            raise ContentError(f"{blob.cid}, metadata of the model, is not in the store")
        return data

    # Room

    @property
    def max_bytes(self) -> int | None:
        """What the store may take of the disk; it can be set at any time, and holds for what comes then."""
        return self._max_bytes

    @max_bytes.setter
    def max_bytes(self, size: int | None) -> None:
        self._max_bytes = size

    def used(self) -> int:
        """Bytes of disk that the store takes; files of the user do not count."""
        return self._folder.used()

    def make_room(self, need: int, keep: Collection[tuple[str, LayerRange]]) -> None:
        """See to it that `need` more bytes fit, within the quota and on the disk.

        Slices that are not in `keep`, whole or not, and loose blobs that no slice needs are removed for it, those that
        were not used for the longest time first. Raises StoreFull if that is not enough; then nothing is removed. What
        is promised to files that are being written does not count as free.
        """
        with self._guard:
            need += sum(max(0, size - on_disk(path)) for path, size in list(self._promised.items()))
            try:
                for path in to_remove(self._folder, self.manifest, self._max_bytes, need, keep):
                    log.info("%s is removed to make room", path)
                    path.unlink(missing_ok=True)
            finally:
                self._index.changed()

    def promise(self, path: Path, size: int, keep: Collection[tuple[str, LayerRange]]) -> None:
        """Make room for the file at `path` to grow to `size` bytes, and keep it until `written`. Raises StoreFull."""
        with self._guard:
            self._promised[path] = size
            try:
                self.make_room(0, keep)
            except BaseException:
                del self._promised[path]
                raise

    def written(self, path: Path) -> None:
        """The file at `path` takes no more of the room that it was promised, if it was. Does not block."""
        self._promised.pop(path, None)

    def remove(self, cid: str, layers: LayerRange | None) -> int:
        """Remove a slice, or with None all of a model; files of the user stay. Returns the bytes of disk freed."""
        if not is_cid(cid):
            return 0
        with self._guard:
            paths = files_of(self._folder, self.manifests(), cid, layers)
            freed = sum(map(on_disk, paths))
            for path in paths:
                path.unlink(missing_ok=True)
            self._folder.tidy(cid)
            if layers is None:
                self._known.pop(cid, None)
            self._index.changed()
        return freed

    def verify(self, cid: str) -> list[Fault]:
        """Hash all that is here of a model again.

        What is not what it should be is set aside: a slice becomes one under construction, from which the next
        `begin` takes what is sound; a loose blob is removed; a file of the user is forgotten.
        """
        manifest = self.manifest(cid)
        if manifest is None:
            return []
        faults = []
        for blob in (manifest.metadata, manifest.tokenizer):
            path = self._folder.blob(blob.cid)
            if path.exists() and not is_sound(blob.cid, in_blob_file(blob, path)[blob.cid]):
                path.unlink()
                faults.append(Fault(cid, None, path, f"{blob.cid} does not have its hash"))
        for model, layers, _ in list(self._folder.slices()):
            if model == cid and (fault := self.verify_slice(cid, layers)) is not None:
                faults.append(fault)
        file = self.file_of(cid)
        if file is not None and (reason := fault_in_file(manifest, file)):
            with self._guard:
                self._notes.write(cid, replace(self._notes.of(cid), file=None))
            faults.append(Fault(cid, None, file, reason))
        self._index.changed()
        return faults

    def verify_slice(self, cid: str, layers: LayerRange) -> Fault | None:
        """Hash one whole slice again; one that is not what it should be is set aside, as by `verify`."""
        manifest = self.manifest(cid)
        path = self._folder.slice(cid, layers)
        if manifest is None or not path.exists() or not (reason := self._fault_of(manifest, layers, path)):
            return None
        self._faults[cid, layers] = reason
        path.replace(self._folder.part(cid, layers))
        self._index.changed()
        return Fault(cid, layers, path, reason)

    def fault_of(self, cid: str, layers: LayerRange) -> str | None:
        """Why a slice was set aside, if it was and is not whole again."""
        return self._faults.get((cid, layers))

    def _fault_of(self, manifest: Manifest, layers: LayerRange, path: Path) -> str | None:
        try:
            return fault_in_slice(manifest, layers, path, self._plan(manifest, layers))
        except ContentError as error:
            return str(error)
