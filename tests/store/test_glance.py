import pytest

from intelnav.store.blobs import Store
from intelnav.store.glance import glance
from tests.store.holdings import MIDDLE, TAIL, Donor


@pytest.fixture
def filled(donor: Donor, store: Store) -> Store:
    donor.fill(store, MIDDLE)
    donor.fill(store, TAIL)
    return store


def test_a_sound_store_has_no_fault(filled: Store) -> None:
    slices, faults = glance(filled.root)
    assert ([held.layers for held in slices], faults) == ([MIDDLE, TAIL], [])


def test_nothing_is_changed(filled: Store) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.root.rglob("*")}
    glance(filled.root)
    assert {path: path.stat().st_mtime_ns for path in filled.root.rglob("*")} == before


def test_a_slice_of_another_size_or_header_is_a_fault(filled: Store) -> None:
    middle, tail = (held.path for held in filled.slices())
    with middle.open("r+b") as file:
        file.truncate(middle.stat().st_size - 1)
    with tail.open("r+b") as file:
        file.seek(8)
        file.write(b"x")
    _, faults = glance(filled.root)
    assert [(fault.path, fault.layers) for fault in faults] == [(middle, MIDDLE), (tail, TAIL)]


def test_a_damaged_manifest_is_a_fault_and_so_are_its_slices(donor: Donor, filled: Store) -> None:
    (manifest,) = (filled.root / "manifests").glob("*.json")
    manifest.write_bytes(manifest.read_bytes()[:-10])
    _, faults = glance(filled.root)
    assert [fault.path for fault in faults] == [manifest, *(held.path for held in filled.slices())]
    assert {fault.model for fault in faults} == {donor.manifest.cid}


def test_a_slice_without_its_metadata_is_a_fault(donor: Donor, filled: Store) -> None:
    for blob in (filled.root / "blobs").iterdir():
        blob.unlink()
    _, faults = glance(filled.root)
    assert [fault.layers for fault in faults] == [MIDDLE, TAIL]
    assert "metadata" in faults[0].reason
