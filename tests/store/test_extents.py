from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.extents import CHUNK, Extent, Located, in_file, in_slice
from intelnav.store.faults import is_sound
from intelnav.store.gguf import Value, encode_header, padded
from intelnav.store.gguf_reader import read_header
from intelnav.store.manifest import manifest_of
from tests.models import tiny_model
from tests.store.holdings import Donor


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_range_can_be_read(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "file"
    content = bytes(range(256)) * 4
    path.write_bytes(content)
    extents, expected = [], b""
    for _ in range(data.draw(st.integers(0, 5))):
        offset, length = data.draw(st.integers(0, 900)), data.draw(st.integers(0, 100))
        zeros = data.draw(st.booleans())
        extents.append(Extent(None if zeros else path, offset, length))
        expected += bytes(length) if zeros else content[offset : offset + length]
    located = Located(len(expected), tuple(extents))
    start = data.draw(st.integers(0, len(expected)))
    end = data.draw(st.integers(start, len(expected)))
    assert b"".join(located.read(start, end)) == expected[start:end]


def test_large_ranges_come_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * CHUNK))
    for extent in (Extent(path, 5, 2 * CHUNK + 7), Extent(None, 0, 2 * CHUNK + 7)):
        chunks = list(Located(extent.length, (extent,)).read(0, extent.length))
        assert sum(map(len, chunks)) == extent.length
        assert max(map(len, chunks)) <= CHUNK


def test_a_file_that_became_shorter_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    with pytest.raises(ContentError, match="ends 5 bytes too early"):
        list(Located(15, (Extent(path, 0, 15),)).read(0, 15))


def test_a_slice_without_tensors_is_refused(donor: Donor, tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.write_bytes(encode_header({"general.alignment": Value.integer(32)}, [], 32))
    with pytest.raises(ContentError, match="no tensors"):
        in_slice(donor.manifest, LayerRange(0, 1), path)


def test_a_bundle_whose_tensors_stand_together_is_one_extent(donor: Donor) -> None:
    found = in_file(donor.manifest, read_header(donor.path), donor.path)
    assert set(found) == {blob.cid for blob in donor.manifest.blobs}
    blocks = [e.blob.cid for e in donor.manifest.bundles if e.bundle.name.startswith("blk.")]
    assert all(len(found[cid].extents) == 1 for cid in blocks)
    # What belongs to no block lies at both ends of the file.
    assert len(found[donor.manifest.metadata.cid].extents) >= 1


def test_another_file_than_that_of_the_manifest_is_refused(donor: Donor, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other.gguf", "qwen2")
    with pytest.raises(ContentError, match="is not the file of tiny llama"):
        in_file(donor.manifest, read_header(other), other)
    longer = tiny_model(tmp_path / "longer.gguf", rope_freqs=True, extra={"rope.scaling.factor": 1.0})
    with pytest.raises(ContentError, match="its metadata have another size"):
        in_file(donor.manifest, read_header(longer), longer)


def test_padding_is_zeros_whatever_the_file_has_there(donor: Donor, tmp_path: Path) -> None:
    header, data = read_header(donor.path), donor.path.read_bytes()
    metadata = header.metadata | {"general.alignment": Value.integer(128)}
    body, tensors = b"", []
    for tensor in header.tensors:
        tensors.append(replace(tensor, offset=len(body)))
        body += data[tensor.offset : tensor.offset + tensor.size]
        body += b"\xff" * (padded(len(body), 128) - len(body))
    assert body.count(b"\xff" * 96)
    dirty, clean = tmp_path / "dirty.gguf", tmp_path / "clean.gguf"
    head = encode_header(metadata, tensors, 128)
    dirty.write_bytes(head + body)
    clean.write_bytes(head + body.replace(b"\xff" * 96, bytes(96)))
    manifest = manifest_of(dirty)
    assert manifest.bundles == manifest_of(clean).bundles
    located = in_file(manifest, read_header(dirty), dirty)
    assert all(is_sound(cid, place) for cid, place in located.items())
    assert Extent(None, 0, 96) in located[manifest.bundles[0].blob.cid].extents
