import os
import subprocess
import sys
from pathlib import Path

import pytest

from intelnav.domain.errors import ConfigError, ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.blobs import Store
from intelnav.store.manifest import kv_blobs, needed, slice_bytes
from tests.store.holdings import FRONT, MIDDLE, TAIL, Donor, manifest_named
from tests.store.test_folder import TRICKS

SECOND = """
import sys
from pathlib import Path
from intelnav.domain.errors import ConfigError
from intelnav.store.blobs import Store
try:
    with Store.open(Path(sys.argv[1]), None):
        print("opened")
except ConfigError as error:
    print(error)
"""


def second_process(root: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", SECOND, str(root)], capture_output=True, text=True, timeout=30, check=True
    ).stdout


def test_one_process_at_a_time_owns_a_store(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", None):
        told = second_process(tmp_path / "store")
        assert f"another process (pid {os.getpid()}) has this store open" in told
    assert second_process(tmp_path / "store") == "opened\n"
    with (
        Store.open(tmp_path / "store", None),
        pytest.raises(ConfigError),
        Store.open(tmp_path / "store", None),
    ):
        pass


def test_a_store_remembers(donor: Donor, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", None) as store:
        path = donor.fill(store, MIDDLE)
        store.add_origin(donor.manifest.cid, "https://example.org/model.gguf")
    with Store.open(tmp_path / "store", None) as store:
        assert store.manifests() == [donor.manifest]
        assert store.slice(donor.manifest.cid, MIDDLE) == path
        assert [(held.model, held.layers) for held in store.slices()] == [(donor.manifest.cid, MIDDLE)]
        assert store.origins(donor.manifest.cid) == ["https://example.org/model.gguf"]


def test_a_damaged_manifest_is_not_believed(donor: Donor, tmp_path: Path) -> None:
    other = manifest_named(donor.manifest, "another")
    with Store.open(tmp_path / "store", None) as store:
        store.add_manifest(donor.manifest)
    place = tmp_path / "store" / "manifests" / f"{donor.manifest.cid}.json"
    for damaged in (b"", b"{", donor.manifest.to_bytes()[:-5], other.to_bytes()):
        place.write_bytes(damaged)
        with Store.open(tmp_path / "store", None) as store:
            assert store.manifest(donor.manifest.cid) is None
            assert store.manifests() == []
            store.add_manifest(donor.manifest)
            assert store.manifest(donor.manifest.cid) == donor.manifest


def test_a_file_of_the_user_is_hashed_once_and_forgotten_when_it_changes(
    donor: Donor, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(donor.path.read_bytes())
    assert store.known_file(path) is None
    store.add_file(donor.manifest, path, "https://example.org/own.gguf")
    assert store.known_file(path) == donor.manifest
    assert store.file_of(donor.manifest.cid) == path
    for blob in donor.manifest.blobs:
        assert store.blob(blob) == donor.store.blob(blob)
    os.utime(path)
    assert store.known_file(path) is None
    assert store.file_of(donor.manifest.cid) is None
    assert all(store.locate(blob.cid) is None for blob in donor.manifest.blobs)
    assert store.origins(donor.manifest.cid) == ["https://example.org/own.gguf"]
    with pytest.raises(ContentError, match="its manifest says"):
        path.write_bytes(b"x")
        store.add_file(donor.manifest, path, None)


def test_an_origin_is_an_url(donor: Donor, store: Store) -> None:
    for url in ("file:///etc/passwd", "ftp://example.org/", "example.org"):
        with pytest.raises(ContentError, match="no http or https URL"):
            store.add_origin(donor.manifest.cid, url)
        with pytest.raises(ContentError, match="no http or https URL"):
            store.add_file(donor.manifest, donor.path, url)


def test_a_blob_is_kept_only_if_it_is_what_it_should_be(donor: Donor, store: Store) -> None:
    blob = donor.manifest.metadata
    data = donor.store.blob(blob)
    assert data is not None
    for wrong in (data[:-1], data + b"\0", data[:-1] + b"\xff", b""):
        with pytest.raises(ContentError, match="bytes are not"):
            store.put_blob(blob, wrong)
    assert store.locate(blob.cid) is None
    store.put_blob(blob, data)
    assert store.blob(blob) == data


def test_a_damaged_blob_is_not_believed_and_can_be_had_again(
    donor: Donor, store: Store, tmp_path: Path
) -> None:
    blob = donor.manifest.metadata
    data = donor.store.blob(blob)
    assert data is not None
    store.put_blob(blob, data)
    place = tmp_path / "store" / "blobs" / blob.cid
    place.write_bytes(data[:-1] + b"\xff")
    assert store.blob(blob) is None
    with pytest.raises(ContentError, match="is not in the store"):
        store.begin(donor.manifest, MIDDLE)
    store.put_blob(blob, data)
    store.begin(donor.manifest, MIDDLE)


def test_a_slice_is_not_begun_without_its_key_values(donor: Donor, store: Store) -> None:
    metadata, tokenizer = kv_blobs(donor.manifest, FRONT)
    with pytest.raises(ContentError, match=metadata.cid):
        store.begin(donor.manifest, MIDDLE)
    store.put_blob(metadata, donor.store.blob(metadata) or b"")
    store.begin(donor.manifest, MIDDLE)
    with pytest.raises(ContentError, match=tokenizer.cid):
        store.begin(donor.manifest, FRONT)
    with pytest.raises(ContentError, match=r"layers 4\.\.7 cannot be cut"):
        store.begin(donor.manifest, LayerRange(4, 7))


@pytest.mark.parametrize("layers", [FRONT, MIDDLE, TAIL], ids=str)
def test_everything_that_a_slice_is_made_from_can_be_had_from_it(
    donor: Donor, store: Store, tmp_path: Path, layers: LayerRange
) -> None:
    donor.fill(store, layers)
    blobs = (*needed(donor.manifest, layers), *kv_blobs(donor.manifest, layers))
    for blob in blobs:
        assert store.blob(blob) == donor.store.blob(blob)
    others = {blob for blob in donor.manifest.blobs if blob.size} - set(blobs)
    assert all(store.locate(blob.cid) is None for blob in others)
    # The tokenizer is in the slice, and nowhere else.
    assert [path.name for path in (tmp_path / "store" / "blobs").iterdir()] == [donor.manifest.metadata.cid]


@pytest.mark.parametrize("layers", ["0..8", "8..15", "22..30", "0..30"])
def test_a_slice_takes_hardly_more_disk_than_its_bundles(real: Donor, store: Store, layers: str) -> None:
    taken = LayerRange.parse(layers)
    real.fill(store, taken)
    bundles = sum(blob.size for blob in needed(real.manifest, taken))
    (held,) = store.slices()
    assert bundles <= held.bytes <= store.used() <= 1.05 * bundles
    assert slice_bytes(real.manifest, taken) <= 1.05 * bundles


def test_a_made_up_embedding_takes_no_disk(real: Donor, store: Store) -> None:
    path = real.fill(store, LayerRange(8, 9))
    (held,) = store.slices()
    assert held.bytes <= path.stat().st_size + 4096


def test_what_is_removed_is_gone_and_no_file_of_the_user_is(
    donor: Donor, store: Store, tmp_path: Path
) -> None:
    cid = donor.manifest.cid
    store.add_file(donor.manifest, donor.path, None)
    for layers in (FRONT, MIDDLE):
        donor.fill(store, layers)
    donor.begin(store, TAIL)
    before = store.used()
    assert 0 < store.remove(cid, MIDDLE) == before - store.used()
    assert [held.layers for held in store.slices()] == [FRONT]
    assert store.remove(cid, None) > 0
    assert donor.path.exists()
    assert (store.manifests(), store.slices(), store.file_of(cid)) == ([], [], None)
    assert [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()] == ["lock"]
    assert store.remove(cid, None) == 0


def test_what_another_model_shares_stays(donor: Donor, store: Store) -> None:
    other = manifest_named(donor.manifest, "another")
    donor.begin(store, MIDDLE)
    store.add_manifest(other)
    store.remove(other.cid, None)
    assert store.blob(donor.manifest.metadata) is not None


@pytest.mark.parametrize("trick", TRICKS)
def test_what_is_no_cid_finds_nothing(donor: Donor, store: Store, trick: str) -> None:
    donor.fill(store, MIDDLE)
    before = store.used()
    assert store.manifest(trick) is None
    assert store.slice(trick, MIDDLE) is None
    assert store.locate(trick) is None
    assert store.file_of(trick) is None
    assert store.origins(trick) == []
    assert store.verify(trick) == []
    assert store.remove(trick, None) == 0
    assert store.used() == before
    with pytest.raises(ContentError, match="is no content id"):
        store.add_origin(trick, "https://example.org/")
