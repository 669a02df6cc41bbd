"""A file that is not whole yet, beside notes on where it comes from and how much of it is on the disk for certain."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from intelnav.domain.errors import ContentError

CHUNK = 1 << 20
# So often is noted what is on the disk for certain; a crash loses no more.
SYNC_BYTES = 64 << 20

MAGIC = b"GGUF"


@dataclass(slots=True)
class Notes:
    """Which file it is, with its size in bytes; `etag` and `sha256` (hexadecimal) may be unknown."""

    url: str
    etag: str | None
    size: int
    sha256: str | None
    synced: int = 0


def load(part: Path, url: str) -> Notes | None:
    """The notes on what there is of `url`; None if there is nothing, or nothing that can be gone on with."""
    try:
        notes = Notes(**json.loads(_beside(part).read_text()))
        if notes.url == url and 0 < notes.synced <= part.stat().st_size and (notes.etag or notes.sha256):
            return notes
    except (OSError, ValueError, TypeError):
        pass
    return None


def forget(part: Path) -> None:
    """Remove a part and its notes, whatever there is of them."""
    for path in (part, _beside(part), _beside(part, ".new")):
        path.unlink(missing_ok=True)


def _beside(part: Path, suffix: str = ".json") -> Path:
    return part.with_suffix(suffix)


class PartFile:
    """A part that is open for writing behind its synced bytes, which are read for their hash.

    Everything here runs in a thread, one call at a time. `between` is called for each chunk of what is read, and may
    raise to give up.
    """

    def __init__(self, part: Path, notes: Notes, between: Callable[[], None]) -> None:
        self._part = part
        self._notes = notes
        self._hash = hashlib.sha256()
        self._file: BinaryIO = part.open("r+b" if notes.synced else "wb")
        self._size = 0
        try:
            while self._size < notes.synced:
                between()
                data = self._file.read(min(CHUNK, notes.synced - self._size))
                if not data:
                    raise ContentError(f"{part}: became shorter while it was read")
                self._hash.update(data)
                self._size += len(data)
            self._file.truncate()
        except BaseException:
            self._file.close()
            raise

    @property
    def sha256(self) -> str:
        """The hash of all that was written, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Append; raises ContentError if what comes is no GGUF."""
        if self._size == 0 and not data.startswith(MAGIC):
            raise ContentError(f"{self._notes.url}: is no GGUF; it begins with {data[:16]!r}")
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)
        if self._size - self._notes.synced >= SYNC_BYTES:
            self._sync()

    def close(self, rest: bytes = b"") -> None:
        """Append what is left and note how much there is."""
        try:
            if rest:
                self.write(rest)
            self._sync()
        finally:
            self._file.close()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._notes.synced = self._size
        draft = _beside(self._part, ".new")
        draft.write_text(json.dumps(asdict(self._notes)))
        draft.replace(_beside(self._part))
