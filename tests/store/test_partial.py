from dataclasses import replace
from pathlib import Path

import pytest

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.blobs import Store
from intelnav.store.cid import cid_of
from intelnav.store.cut import cut
from intelnav.store.manifest import Manifest, needed
from intelnav.store.model_file import describe
from tests.store.holdings import FRONT, MIDDLE, TAIL, Donor


@pytest.mark.parametrize("layers", [FRONT, MIDDLE, TAIL, LayerRange(0, 6)], ids=str)
def test_a_slice_from_pieces_is_the_slice_that_is_cut(
    donor: Donor, store: Store, tmp_path: Path, layers: LayerRange
) -> None:
    path = donor.fill(store, layers)
    cut(donor.path, layers, tmp_path / "cut.gguf", donor.manifest.cid)
    assert path.read_bytes() == (tmp_path / "cut.gguf").read_bytes()
    assert describe(path).model == donor.manifest.cid


def test_pieces_are_counted_in_the_order_of_the_file(real: Donor, store: Store) -> None:
    layers = LayerRange(8, 10)
    partial = real.begin(store, layers)
    blobs = needed(real.manifest, layers)
    assert partial.missing() == [(blob, index) for blob in blobs for index in range(blob.piece_count)]
    assert len(partial.missing()) > len(blobs)
    assert (partial.total, partial.done) == (sum(blob.size for blob in blobs), 0)
    # From the last to the first, and one of them twice.
    for blob, index in [partial.missing()[-1], *reversed(partial.missing())]:
        partial.write(blob, index, real.piece(blob, index))
    assert partial.done == partial.total
    assert partial.missing() == []
    partial.finish()
    assert store.verify(real.manifest.cid) == []


@pytest.mark.parametrize("wrong", ["flipped", "short", "long", "another piece", "empty"])
def test_what_does_not_have_the_hash_is_not_written(real: Donor, store: Store, wrong: str) -> None:
    partial = real.begin(store, LayerRange(8, 9))
    (blob, index), (other, other_index) = partial.missing()[:2]
    data = real.piece(blob, index)
    bad = {
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "short": data[:-1],
        "long": data + b"\0",
        "another piece": real.piece(other, other_index),
        "empty": b"",
    }[wrong]
    before = store.used()
    with pytest.raises(ContentError, match="does not have the hash"):
        partial.write(blob, index, bad)
    assert (partial.done, store.used()) == (0, before)
    assert (blob, index) in partial.missing()


def test_a_piece_of_something_else_is_refused(donor: Donor, store: Store) -> None:
    partial = donor.begin(store, MIDDLE)
    (other,) = set(needed(donor.manifest, LayerRange(4, 5))) - set(needed(donor.manifest, MIDDLE))
    for blob, index in ((other, 0), (partial.missing()[0][0], 99), (partial.missing()[0][0], -1)):
        with pytest.raises(ContentError, match="is no part of this slice"):
            partial.write(blob, index, b"")


def test_a_slice_with_a_piece_missing_is_not_finished(donor: Donor, store: Store) -> None:
    partial = donor.begin(store, MIDDLE)
    for blob, index in partial.missing()[1:]:
        partial.write(blob, index, donor.piece(blob, index))
    with pytest.raises(ContentError, match="1 pieces of this slice are missing"):
        partial.finish()
    assert store.slice(donor.manifest.cid, MIDDLE) is None


def test_what_was_written_is_gone_on_with_and_what_was_spoilt_is_not(real: Donor, store: Store) -> None:
    layers = LayerRange(8, 10)
    first = real.begin(store, layers)
    pieces = first.missing()
    for blob, index in pieces[:4]:
        first.write(blob, index, real.piece(blob, index))
    (part,) = (store_root(store) / "slices").glob("*/.*.part")
    data = bytearray(part.read_bytes())
    at = data.index(real.piece(*pieces[1])[:64])
    data[at] ^= 1
    part.write_bytes(data)
    again = real.begin(store, layers)
    assert [piece for piece in pieces if piece not in again.missing()] == [pieces[0], *pieces[2:4]]
    assert again.done == sum(
        end - start for start, end in (b.bounds(i) for b, i in (pieces[0], *pieces[2:4]))
    )


def test_what_was_spoilt_after_it_was_written_is_not_finished(real: Donor, store: Store) -> None:
    layers = LayerRange(8, 9)
    partial = real.begin(store, layers)
    for blob, index in partial.missing():
        partial.write(blob, index, real.piece(blob, index))
    (part,) = (store_root(store) / "slices").glob("*/.*.part")
    blob, index = needed(real.manifest, layers)[0], 1
    data = bytearray(part.read_bytes())
    data[data.index(real.piece(blob, index)[:64])] ^= 1
    part.write_bytes(data)
    with pytest.raises(ContentError, match="but not its hash"):
        partial.finish()
    assert store.slice(real.manifest.cid, layers) is None


def test_pieces_that_do_not_make_up_the_blob_are_found_out(real: Donor, store: Store) -> None:
    """A manifest whose author wrote another id over a bundle with sound pieces."""
    layers = LayerRange(8, 9)
    entries = list(real.manifest.bundles)
    place = next(i for i, entry in enumerate(entries) if entry.bundle.name == "blk.8")
    entries[place] = replace(entries[place], blob=replace(entries[place].blob, cid=cid_of(bytes(32))))
    lying = Manifest.from_bytes(replace(real.manifest, bundles=tuple(entries)).to_bytes())
    real.begin(store, layers)
    partial = store.begin(lying, layers)
    sound = {entry.blob.pieces: entry.blob for entry in real.manifest.bundles if entry.blob.pieces}
    for blob, index in partial.missing():
        partial.write(blob, index, real.piece(sound.get(blob.pieces, blob), index))
    with pytest.raises(ContentError, match="but not its hash"):
        partial.finish()
    assert store.slices() == []


def test_blocks_that_are_the_same_are_brought_once(donor: Donor, tmp_path: Path) -> None:
    data = bytearray(donor.path.read_bytes())
    tensors = {tensor.name: tensor for tensor in describe(donor.path).header.tensors}
    for name, tensor in tensors.items():
        if name.startswith("blk.2."):
            twin = tensors[name.replace("blk.2.", "blk.3.")]
            data[twin.offset : twin.offset + twin.size] = data[tensor.offset : tensor.offset + tensor.size]
    path = tmp_path / "twins.gguf"
    path.write_bytes(data)
    with Store.open(tmp_path / "source", None) as source, Store.open(tmp_path / "target", None) as target:
        twins = Donor(source, path)
        partial = twins.begin(target, MIDDLE)
        assert len({blob.cid for blob, _ in partial.missing()}) == len(partial.missing()) == 2
        twins.fill(target, MIDDLE)
        assert target.verify(twins.manifest.cid) == []
        assert twins.begin(target, MIDDLE).missing() != []


def test_what_is_discarded_is_gone(donor: Donor, store: Store) -> None:
    partial = donor.begin(store, MIDDLE)
    blob, index = partial.missing()[0]
    partial.write(blob, index, donor.piece(blob, index))
    partial.discard()
    assert partial.done == 0
    assert list((store_root(store) / "slices").glob("*/.*.part")) == []


def store_root(store: Store) -> Path:
    return store._folder.root
