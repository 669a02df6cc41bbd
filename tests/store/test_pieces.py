import hashlib
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from intelnav.domain.errors import ContentError
from intelnav.store.cid import cid_of
from intelnav.store.pieces import PIECE, BlobHasher, FileHasher


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 17])
def test_pieces_cover_a_blob_and_have_their_own_hashes(size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    hasher = BlobHasher()
    hasher.update(data)
    blob = hasher.blob()
    assert (blob.cid, blob.size) == (cid_of(blake3(data).digest()), size)
    assert len(blob.pieces) == (blob.piece_count if size > PIECE else 0)
    bounds = [blob.bounds(index) for index in range(blob.piece_count)]
    assert b"".join(data[start:end] for start, end in bounds) == data
    for index, (start, end) in enumerate(bounds):
        assert blob.digest_of(index) == blake3(data[start:end]).digest()
    for index in (-1, blob.piece_count):
        with pytest.raises(IndexError):
            blob.digest_of(index)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, PIECE + 100), max_size=8))
def test_it_does_not_matter_in_what_portions_the_bytes_come(portions: list[int]) -> None:
    data = blake3(b"seed").digest(length=sum(portions))
    at_once, piecemeal = BlobHasher(), BlobHasher()
    at_once.update(data)
    at = 0
    for portion in portions:
        piecemeal.update(data[at : at + portion])
        at += portion
    assert piecemeal.blob() == at_once.blob()


def test_a_file_is_read_once_for_its_sha256_and_for_a_blob_in_it(tmp_path: Path) -> None:
    data = blake3(b"seed").digest(length=3 * PIECE)
    path = tmp_path / "file"
    path.write_bytes(data)
    blob = BlobHasher()
    with path.open("rb") as file, FileHasher(file, lambda: None) as hashed:
        hashed.read(1000, None)
        hashed.read(2 * PIECE, blob)
        hashed.read(None, None)
        assert hashed.result() == (len(data), hashlib.sha256(data).hexdigest())
    assert blob.blob().cid == cid_of(blake3(data[1000 : 2 * PIECE]).digest())


def test_a_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with (
        path.open("rb") as file,
        FileHasher(file, lambda: None) as hashed,
        pytest.raises(ContentError, match="byte 100 is gone"),
    ):
        hashed.read(101, None)
