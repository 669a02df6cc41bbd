import os
from pathlib import Path

import pytest

from intelnav.domain.errors import StoreFull
from intelnav.domain.slice import LayerRange
from intelnav.store.blobs import Store
from tests.store.holdings import FRONT, MIDDLE, TAIL, Donor


def aged(store: Store, donor: Donor, *order: LayerRange) -> None:
    """Make the slices look as if they were last used in this order, long ago."""
    for age, layers in enumerate(order):
        path = store.slice(donor.manifest.cid, layers)
        assert path is not None
        os.utime(path, ns=(0, 10**18 + age * 10**9))


def held(store: Store) -> set[LayerRange]:
    return {found.layers for found in store.slices()}


def test_what_was_not_used_for_the_longest_time_goes_first(donor: Donor, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", None) as store:
        for layers in (FRONT, MIDDLE, TAIL):
            donor.fill(store, layers)
        used = store.used()
    with Store.open(tmp_path / "store", used) as store:
        aged(store, donor, MIDDLE, TAIL, FRONT)
        store.make_room(0, ())
        assert held(store) == {FRONT, MIDDLE, TAIL}
        store.make_room(1, ())
        assert held(store) == {FRONT, TAIL}
        # Used again, so the other is older now.
        aged(store, donor, TAIL, FRONT)
        assert store.slice(donor.manifest.cid, TAIL) is not None
        store.make_room(used - store.used() + 1, ())
        assert held(store) == {TAIL}
        assert store.locate(donor.manifest.tokenizer.cid) is None


def test_what_is_to_be_kept_stays(donor: Donor, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", None) as store:
        for layers in (FRONT, MIDDLE):
            donor.fill(store, layers)
        donor.begin(store, TAIL)
        used = store.used()
    cid = donor.manifest.cid
    with Store.open(tmp_path / "store", used) as store:
        aged(store, donor, MIDDLE, FRONT)
        store.make_room(1, {(cid, MIDDLE), (cid, TAIL)})
        assert held(store) == {MIDDLE}
        assert list((tmp_path / "store").glob("slices/*/.4-6.part"))
        store.make_room(1, ())
        with pytest.raises(StoreFull):
            store.make_room(used, {(cid, MIDDLE)})


def test_a_quota_that_is_too_small_is_said_with_figures_and_nothing_is_removed(
    donor: Donor, tmp_path: Path
) -> None:
    with Store.open(tmp_path / "store", 1_000_000) as store:
        donor.fill(store, MIDDLE)
        with pytest.raises(
            StoreFull, match=r"1000000 more bytes do not fit: .* of 1000000 allowed"
        ) as caught:
            store.make_room(1_000_000, ())
        assert caught.value.code == "store_full"
        assert held(store) == {MIDDLE}


def test_the_disk_bounds_it_too(donor: Donor, store: Store) -> None:
    donor.fill(store, MIDDLE)
    with pytest.raises(StoreFull, match="without a quota, its disk has"):
        store.make_room(1 << 60, ())
    assert held(store) == {MIDDLE}


def test_half_a_slice_and_loose_blobs_can_be_removed(donor: Donor, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", None) as store:
        partial = donor.begin(store, FRONT)
        for blob, index in partial.missing():
            partial.write(blob, index, donor.piece(blob, index))
        used = store.used()
    with Store.open(tmp_path / "store", used) as store:
        store.make_room(used // 2, {(donor.manifest.cid, TAIL)})
        assert list((tmp_path / "store").glob("slices/*/.*.part")) == []
        # The tokenizer is next, the metadata are needed for what is kept.
        store.make_room(used - store.used() + 1, {(donor.manifest.cid, TAIL)})
        assert store.blob(donor.manifest.tokenizer) is None
        assert store.blob(donor.manifest.metadata) is not None


def test_what_is_promised_to_one_file_is_not_free_for_another(donor: Donor, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", None) as store:
        used = store.used()
    with Store.open(tmp_path / "store", used + 100_000) as store:
        one, other = store.root / "one", store.root / "other"
        store.promise(one, 60_000, ())
        with pytest.raises(StoreFull):
            store.promise(other, 60_000, ())
        assert set(store._promised) == {one}
        with pytest.raises(StoreFull):
            store.make_room(60_000, ())
        # What is written of it already counts once.
        one.write_bytes(bytes(60_000))
        store.promise(other, 30_000, ())
        store.written(other)
        store.written(one)
        one.unlink()
        store.promise(other, 60_000, ())
