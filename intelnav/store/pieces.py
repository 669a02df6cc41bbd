"""Blobs: bytes with an id, hashed a second time in pieces so that a download is checked while it comes."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Self

from blake3 import blake3

from intelnav.domain.errors import ContentError
from intelnav.store.cid import cid_of, digest_of

PIECE = 1 << 20
# Read at once while hashing a file.
CHUNK = 4 * PIECE


@dataclass(frozen=True, slots=True)
class Blob:
    """Some bytes, by their id and their number.

    `pieces` are the BLAKE3 digests of each PIECE bytes, the last of which may be shorter; none if there is only one
    piece, whose digest is the id. A blob of size 0 has no piece.
    """

    cid: str
    size: int
    pieces: tuple[bytes, ...] = ()

    @property
    def piece_count(self) -> int:
        """How many pieces there are."""
        return -(-self.size // PIECE)

    def digest_of(self, index: int) -> bytes:
        """The BLAKE3 digest of a piece, 32 bytes; IndexError if there is no such piece."""
        self.bounds(index)
        return self.pieces[index] if self.pieces else digest_of(self.cid)

    def bounds(self, index: int) -> tuple[int, int]:
        """Start and end of a piece within the blob, in bytes; IndexError if there is no such piece."""
        if not 0 <= index < self.piece_count:
            raise IndexError(f"piece {index} of {self.piece_count}")
        return index * PIECE, min((index + 1) * PIECE, self.size)


class BlobHasher:
    """Hashes the bytes of one blob as they come, whole and in pieces."""

    def __init__(self) -> None:
        self._whole = blake3(max_threads=blake3.AUTO)
        self._piece = blake3()
        self._pieces: list[bytes] = []
        self._size = 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the blob."""
        self._whole.update(data)
        with memoryview(data) as rest:
            at = 0
            while at < len(rest):
                if self._size and self._size % PIECE == 0:
                    self._pieces.append(self._piece.digest())
                    self._piece = blake3()
                end = min(len(rest), at + PIECE - self._size % PIECE)
                self._piece.update(rest[at:end])
                self._size += end - at
                at = end

    def blob(self) -> Blob:
        """What the bytes so far are."""
        pieces = (*self._pieces, self._piece.digest()) if self._pieces else ()
        return Blob(cid_of(self._whole.digest()), self._size, pieces)


class FileHasher:
    """Reads a file from its start to its end once: SHA-256 of all of it, and a blob's hashes of any part.

    `between` is called before each chunk, and may raise to give up.
    """

    def __init__(self, file: BinaryIO, between: Callable[[], None]) -> None:
        self._file = file
        self._between = between
        self._sha256 = hashlib.sha256()
        # Beside the main thread: SHA-256 is the slowest of the hashes.
        self._pool = ThreadPoolExecutor(1)
        self._at = 0

    def read(self, end: int | None, hasher: BlobHasher | None) -> None:
        """Hash the bytes up to `end`, None for the end of the file; they go to `hasher`, too.

        Raises ContentError if the file ends earlier.
        """
        while end is None or self._at < end:
            self._between()
            chunk = self._file.read(CHUNK if end is None else min(CHUNK, end - self._at))
            if not chunk:
                if end is None:
                    return
                raise ContentError(f"the file became shorter while it was read: byte {self._at} is gone")
            summed = self._pool.submit(self._sha256.update, chunk)
            if hasher is not None:
                hasher.update(chunk)
            summed.result()
            self._at += len(chunk)

    def result(self) -> tuple[int, str]:
        """How many bytes were read, and their SHA-256 in hex."""
        return self._at, self._sha256.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
