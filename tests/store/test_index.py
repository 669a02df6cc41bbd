import logging
from pathlib import Path

import pytest

from intelnav.store.blobs import Store
from intelnav.store.manifest import needed
from tests.store.holdings import FRONT, MIDDLE, TAIL, Donor


def test_a_blob_is_found_where_it_lies_as_long_as_it_does(donor: Donor, store: Store) -> None:
    common, block = needed(donor.manifest, MIDDLE)[:2]
    assert store.locate(block.cid) is None
    path = donor.fill(store, MIDDLE)
    located = store.locate(block.cid)
    assert located is not None
    assert [extent.path for extent in located.extents] == [path]
    other = donor.fill(store, TAIL)
    store.remove(donor.manifest.cid, MIDDLE)
    assert store.locate(block.cid) is None
    # What both slices have is found in the other.
    shared = store.locate(common.cid)
    assert shared is not None
    assert [extent.path for extent in shared.extents] == [other]


def test_a_slice_whose_header_is_damaged_is_left_out(
    donor: Donor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    block = needed(donor.manifest, MIDDLE)[1]
    with Store.open(tmp_path / "store", None) as store:
        damaged, sound = donor.fill(store, MIDDLE), donor.fill(store, FRONT)
        damaged.write_bytes(b"GGUF" + bytes(100))
    with Store.open(tmp_path / "store", None) as store, caplog.at_level(logging.WARNING):
        assert store.locate(block.cid) is None
        assert str(damaged) in caplog.text
        front = store.locate(needed(donor.manifest, FRONT)[-1].cid)
        assert front is not None
        assert [extent.path for extent in front.extents] == [sound]


def test_a_slice_whose_manifest_is_lost_is_left_out(donor: Donor, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", None) as store:
        donor.fill(store, MIDDLE)
    (tmp_path / "store" / "manifests" / f"{donor.manifest.cid}.json").unlink()
    with Store.open(tmp_path / "store", None) as store:
        assert store.locate(needed(donor.manifest, MIDDLE)[1].cid) is None
        store.add_manifest(donor.manifest)
        assert store.locate(needed(donor.manifest, MIDDLE)[1].cid) is not None
