"""A slice under construction: written piece by piece, each only after its hash was checked."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from intelnav.domain.errors import ContentError
from intelnav.store.cid import cid_of
from intelnav.store.durable import sync_folder
from intelnav.store.extents import Extent, Located
from intelnav.store.layout import SlicePlan
from intelnav.store.manifest import Blob


class PartialSlice:
    """Bundles on their way into the file of a slice; made by `Store.begin`. One thread at a time.

    `total` and `done` count the bytes of the bundles, all and those that are there. What an earlier process left is
    hashed again, so a file that was half written at any byte is gone on with.
    """

    def __init__(
        self, plan: SlicePlan, blobs: dict[str, Blob], part: Path, target: Path, finished: Callable[[], None]
    ) -> None:
        """`blobs` are those of the plan's bundles by name; `finished` is called once `target` is there."""
        self._plan = plan
        self._part = part
        self._target = target
        self._finished = finished
        # Two blocks may be the same to the byte: then one blob has two places.
        self._places: dict[str, list[int]] = {}
        self._blobs: dict[str, Blob] = {}
        for name, offset, size in plan.bundles:
            if size:
                self._places.setdefault(blobs[name].cid, []).append(offset)
                self._blobs[blobs[name].cid] = blobs[name]
        self.total = sum(blob.size for blob in self._blobs.values())
        self.done = 0
        self._there: set[tuple[str, int]] = set()
        self._open()

    @property
    def path(self) -> Path:
        """Where it lies until it is whole."""
        return self._part

    def missing(self) -> list[tuple[Blob, int]]:
        """The pieces that are not there yet as (blob, index of the piece), in the order of the file."""
        return [
            (blob, index)
            for blob in self._blobs.values()
            for index in range(blob.piece_count)
            if (blob.cid, index) not in self._there
        ]

    def write(self, blob: Blob, index: int, data: bytes) -> None:
        """Put one whole piece in its place.

        Raises ContentError if it is not the piece that it should be, and OSError, for instance of a full disk, after
        which the piece still counts as missing.
        """
        known = self._blobs.get(blob.cid)
        if known is None or not 0 <= index < known.piece_count:
            raise ContentError(f"piece {index} of {blob.cid} is no part of this slice")
        start, end = known.bounds(index)
        if len(data) != end - start or blake3(data).digest() != known.digest_of(index):
            raise ContentError(f"piece {index} of {blob.cid} does not have the hash that the manifest gives")
        if (blob.cid, index) in self._there:
            return
        with self._part.open("r+b", buffering=0) as file:
            for place in self._places[blob.cid]:
                _write(file.fileno(), data, place + start)
        self._there.add((blob.cid, index))
        self.done += end - start

    def finish(self) -> Path:
        """Check every bundle as it is on disk, make the file durable and give it its name, which is returned.

        Raises ContentError if a piece is missing or what is on disk does not have the manifest's hashes, OSError if it
        cannot be written. Nothing has the final name then.
        """
        if missing := self.missing():
            raise ContentError(f"{len(missing)} pieces of this slice are missing")
        for cid, places in self._places.items():
            for place in places:
                blob = self._blobs[cid]
                hasher = blake3(max_threads=blake3.AUTO)
                for chunk in Located(blob.size, (Extent(self._part, place, blob.size),)).read(0, blob.size):
                    hasher.update(chunk)
                if cid_of(hasher.digest()) != cid:
                    raise ContentError(
                        f"bundle {cid} has the pieces that the manifest gives, but not its hash"
                    )
        with self._part.open("r+b", buffering=0) as file:
            _write(file.fileno(), self._plan.header, 0)
            os.fsync(file.fileno())
        self._part.replace(self._target)
        sync_folder(self._target.parent)
        self._finished()
        return self._target

    def discard(self) -> None:
        """Remove what is there."""
        self._part.unlink(missing_ok=True)
        self._there.clear()
        self.done = 0

    def _open(self) -> None:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        with self._part.open("a+b", buffering=0) as file:
            empty = file.seek(0, os.SEEK_END) == 0
            # Unwritten pieces and what is made up stay holes in the file, and cost no disk.
            file.truncate(self._plan.size)
            if not empty:
                self._recognise(file.fileno())

    def _recognise(self, file: int) -> None:
        for cid, places in self._places.items():
            blob = self._blobs[cid]
            for index in range(blob.piece_count):
                start, end = blob.bounds(index)
                digest = blob.digest_of(index)
                if all(
                    _has_data(file, place + start, place + end)
                    and blake3(os.pread(file, end - start, place + start)).digest() == digest
                    for place in places
                ):
                    self._there.add((cid, index))
                    self.done += end - start


def _has_data(file: int, start: int, end: int) -> bool:
    """Whether any of these bytes were ever written: holes need no hashing."""
    try:
        return os.lseek(file, start, os.SEEK_DATA) < end
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise


def _write(file: int, data: bytes, offset: int) -> None:
    with memoryview(data) as rest:
        written = 0
        while written < len(rest):
            written += os.pwrite(file, rest[written:], offset + written)
