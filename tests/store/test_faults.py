from pathlib import Path

import pytest

from intelnav.store.blobs import Store
from intelnav.store.manifest import kv_blobs
from intelnav.store.model_file import describe
from tests.store.holdings import FRONT, MIDDLE, TAIL, Donor


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_what_is_sound_has_no_fault(donor: Donor, store: Store) -> None:
    for layers in (FRONT, MIDDLE, TAIL):
        donor.fill(store, layers)
    assert store.verify(donor.manifest.cid) == []
    assert donor.store.verify(donor.manifest.cid) == []
    assert len(store.slices()) == 3


@pytest.mark.parametrize("place", ["header", "bundle", "end"])
def test_a_faulty_slice_is_set_aside_and_repaired_from_what_is_sound(
    donor: Donor, store: Store, place: str
) -> None:
    path = donor.fill(store, MIDDLE)
    other = donor.fill(store, TAIL)
    if place == "end":
        path.write_bytes(path.read_bytes()[:-32])
    else:
        flip(path, 100 if place == "header" else describe(path).header.tensors[-3].offset)
    (fault,) = store.verify(donor.manifest.cid)
    assert (fault.model, fault.layers, fault.path) == (donor.manifest.cid, MIDDLE, path)
    assert fault.reason
    assert store.slice(donor.manifest.cid, MIDDLE) is None
    assert store.slice(donor.manifest.cid, TAIL) == other
    partial = donor.begin(store, MIDDLE)
    assert len(partial.missing()) <= 1
    for blob, index in partial.missing():
        partial.write(blob, index, donor.piece(blob, index))
    assert partial.finish() == path
    assert store.verify(donor.manifest.cid) == []


def test_a_front_slice_with_a_faulty_tokenizer_is_set_aside(donor: Donor, store: Store) -> None:
    path = donor.fill(store, FRONT)
    flip(path, describe(path).header.kv_end - 8)
    (fault,) = store.verify(donor.manifest.cid)
    assert donor.manifest.tokenizer.cid in fault.reason
    assert store.slices() == []
    assert donor.begin(store, FRONT).missing() == []


def test_a_faulty_blob_is_removed(donor: Donor, store: Store, tmp_path: Path) -> None:
    donor.begin(store, FRONT)
    for blob in kv_blobs(donor.manifest, FRONT):
        flip(tmp_path / "store" / "blobs" / blob.cid, 20)
    faults = store.verify(donor.manifest.cid)
    assert [fault.layers for fault in faults] == [None, None]
    assert list((tmp_path / "store" / "blobs").iterdir()) == []


def test_a_file_of_the_user_that_was_changed_in_secret_is_forgotten(
    donor: Donor, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(donor.path.read_bytes())
    flip(path, describe(path).header.tensors[10].offset)
    store.add_file(donor.manifest, path, None)
    assert store.file_of(donor.manifest.cid) == path
    (fault,) = store.verify(donor.manifest.cid)
    assert fault.path == path
    assert store.file_of(donor.manifest.cid) is None
    assert path.exists()


def test_what_the_store_does_not_have_has_no_fault(donor: Donor, store: Store) -> None:
    assert store.verify(donor.manifest.cid) == []
