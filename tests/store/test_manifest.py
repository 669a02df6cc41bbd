import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.bundles import bundle_names
from intelnav.store.cid import cid_of, is_cid
from intelnav.store.cut import cut
from intelnav.store.gguf_reader import read_header
from intelnav.store.manifest import (
    MAX_MANIFEST,
    FileDigest,
    Manifest,
    kv_blobs,
    manifest_of,
    needed,
    slice_bytes,
)
from tests.models import tiny_model


@pytest.fixture(scope="module")
def manifest(tiny: Path) -> Manifest:
    return manifest_of(tiny)


def test_a_manifest_names_the_model_and_its_parts(manifest: Manifest) -> None:
    assert (manifest.name, manifest.architecture, manifest.blocks) == ("tiny llama", "llama", 6)
    assert (manifest.quantisation, manifest.alignment) == ("F32", 32)
    assert [entry.bundle.name for entry in manifest.bundles] == bundle_names(6)


def test_the_hash_of_a_bundle_is_that_of_its_bytes_in_a_slice(
    tiny: Path, manifest: Manifest, tmp_path: Path
) -> None:
    piece = tmp_path / "slice.gguf"
    cut(tiny, LayerRange(2, 3), piece, manifest.cid)
    entry = next(entry for entry in manifest.bundles if entry.bundle.name == "blk.2")
    first = json.loads(manifest.to_bytes())["bundles"][4]["tensors"][0]
    assert first["name"].startswith("blk.2.")
    data = piece.read_bytes()
    starts = range(0, len(data) - entry.bundle.size + 1, 32)
    assert any(
        cid_of(blake3(data[start : start + entry.bundle.size]).digest()) == entry.blob.cid for start in starts
    )


def test_the_id_depends_on_content_and_on_nothing_else(
    tiny: Path, manifest: Manifest, tmp_path: Path
) -> None:
    assert is_cid(manifest.cid)
    renamed = tmp_path / "another name.gguf"
    renamed.write_bytes(tiny.read_bytes())
    assert manifest_of(renamed).cid == manifest.cid
    changed = bytearray(tiny.read_bytes())
    changed[-40] ^= 1
    renamed.write_bytes(changed)
    assert manifest_of(renamed).cid != manifest.cid
    assert manifest_of(tiny_model(tmp_path / "other.gguf", rope_freqs=True, seed=1)).cid != manifest.cid


def test_metadata_are_part_of_the_model(tmp_path: Path) -> None:
    first = manifest_of(tiny_model(tmp_path / "a.gguf"))
    second = manifest_of(tiny_model(tmp_path / "b.gguf", extra={"rope.freq_base": 20000.0}))
    assert first.bundles == second.bundles
    assert first.cid != second.cid


def test_a_manifest_survives_writing(manifest: Manifest) -> None:
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_a_slice_has_no_manifest(tiny: Path, tmp_path: Path) -> None:
    cut(tiny, LayerRange(0, 2), tmp_path / "slice.gguf", "b3-" + "a" * 52)
    with pytest.raises(ContentError, match="this is a slice"):
        manifest_of(tmp_path / "slice.gguf")


def test_a_real_model_is_hashed_quickly(smollm2: Path) -> None:
    started = time.monotonic()
    manifest = manifest_of(smollm2)
    assert time.monotonic() - started < 2
    assert (manifest.blocks, manifest.quantisation) == (30, "Q4_1")
    assert manifest.cid == "b3-zm75ulztnlu4jfvfii5i4glmfy5gepa2qvd4hbdpfgmj3xoaiwaa"


def written(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def changed(manifest: Manifest, path: str, value: Any) -> bytes:
    document = json.loads(manifest.to_bytes())
    *parents, last = (int(step) if step.isdecimal() else step for step in path.split("/"))
    place = document
    for step in parents:
        place = place[step]
    place[last] = value
    return written(document)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("format", "intelnav/manifest/2", "only 'intelnav/manifest/1' is read"),
        ("quantisation", "Q8_0", "is not the encoding of most bytes"),
        ("name", "\x1b[2J", "no printable text"),
        ("name", "x" * 129, "no printable text of at most 128"),
        ("name", "\ud800", "no manifest"),
        ("file/size", 1000, "cannot hold these tensors"),
        ("file/sha256", "0" * 63, "64 hexadecimal digits"),
        ("metadata/pieces", "AAAA", "3 bytes of piece hashes"),
        ("metadata/pieces", "?", "not base64"),
        ("metadata/pieces", None, "no manifest"),
        (
            "tokenizer",
            {"hash": "b3-" + "a" * 52, "size": 1 << 26, "pieces": base64.b64encode(bytes(64 * 32)).decode()},
            "bytes of metadata are more than is taken",
        ),
        ("bundles/2/hash", "b3-" + "a" * 51 + "b", "not written as b3-"),
        ("added", 1, "not written canonically"),
        ("block_count", 7, "9 bundles for 7 blocks"),
        ("block_count", True, "no whole number"),
        ("block_count", 10**9, "no whole number from 1 to 512"),
        ("alignment", 48, "no power of two"),
        ("quantisation", "Q99", "no manifest: 'Q99'"),
        ("name", "", "a text is missing, empty or too long"),
        ("name", None, "a text is missing"),
        ("metadata", 3, "no manifest"),
        ("metadata/hash", "b3-../../etc", "not written as b3-"),
        ("bundles", {}, "0 bundles for 6 blocks"),
        ("bundles/0/name", "embed", "bundle common does not have the name"),
        ("bundles/2/size", 1, "bundle blk.0 does not have the name and size"),
        ("bundles/2/tensors", 5, "no manifest"),
        ("bundles/2/tensors/1/offset", 0, "repeated or misplaced in bundle blk.0"),
        ("bundles/2/tensors/0/name", "blk.1.attn_norm.weight", "misplaced in bundle blk.0"),
        ("bundles/2/tensors/0/type", "F99", "no manifest"),
        ("bundles/2/tensors/0/shape", [], "a tensor of 0 dimensions"),
        ("bundles/2/tensors/0/shape", [1 << 40, 1 << 40], "no whole number"),
        ("bundles/2/tensors/0/shape", [-1], "no whole number"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    manifest: Manifest, path: str, value: Any, reason: str
) -> None:
    with pytest.raises(ContentError, match=reason):
        Manifest.from_bytes(changed(manifest, path, value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 200_000,
        b'{"block_count":1e400}',
        b" " * (MAX_MANIFEST + 1),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ContentError):
        Manifest.from_bytes(data)


def test_a_manifest_written_in_another_way_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ContentError, match="not written canonically"):
        Manifest.from_bytes(manifest.to_bytes() + b"\n")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_mutation_of_a_manifest_is_refused(manifest: Manifest, data: st.DataObject) -> None:
    sound = manifest.to_bytes()
    at = data.draw(st.integers(0, len(sound) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != sound[at]))
    mutated = sound[:at] + bytes([byte]) + sound[at + 1 :]
    try:
        read = Manifest.from_bytes(mutated)
    except ContentError:
        return
    assert read.to_bytes() == mutated
    assert read.cid != manifest.cid


def test_a_hash_stands_for_one_content(manifest: Manifest) -> None:
    with pytest.raises(ContentError, match="one hash is given for two contents"):
        Manifest.from_bytes(changed(manifest, "bundles/2/hash", manifest.metadata.cid))


def test_sha256_and_size_are_those_of_the_whole_file(tiny: Path, manifest: Manifest) -> None:
    data = tiny.read_bytes()
    assert manifest.file == FileDigest(len(data), hashlib.sha256(data).hexdigest())


def test_key_values_are_split_by_their_names(tiny: Path, manifest: Manifest) -> None:
    header, data = read_header(tiny), tiny.read_bytes()
    assert manifest.metadata.size + manifest.tokenizer.size == header.kv_end - header.kv_start
    # The writer put the tokenizer behind all else.
    parts = data[header.kv_start : header.kv_end]
    assert cid_of(blake3(parts[: manifest.metadata.size]).digest()) == manifest.metadata.cid
    assert cid_of(blake3(parts[manifest.metadata.size :]).digest()) == manifest.tokenizer.cid


@pytest.mark.parametrize(
    ("layers", "bundles", "front"),
    [
        ("0..1", ["common", "embed", "blk.0"], True),
        ("2..4", ["common", "blk.2", "blk.3"], False),
        ("5..6", ["common", "blk.5", "head"], False),
    ],
)
def test_a_slice_needs_its_bundles_and_little_else(
    manifest: Manifest, layers: str, bundles: list[str], front: bool
) -> None:
    taken = LayerRange.parse(layers)
    blobs = {entry.bundle.name: entry.blob for entry in manifest.bundles}
    assert needed(manifest, taken) == tuple(blobs[name] for name in bundles)
    kept = (manifest.metadata, manifest.tokenizer) if front else (manifest.metadata,)
    assert kv_blobs(manifest, taken) == kept
    assert slice_bytes(manifest, taken) == sum(blob.size for blob in (*kept, *needed(manifest, taken)))


def test_a_tied_tail_needs_the_embedding_and_empty_bundles_are_left_out(tmp_path: Path) -> None:
    tied = manifest_of(tiny_model(tmp_path / "tied.gguf", tied=True))
    blobs = {entry.bundle.name: entry.blob for entry in tied.bundles}
    assert blobs["common"].size == 0
    assert needed(tied, LayerRange(5, 6)) == (blobs["embed"], blobs["blk.5"], blobs["head"])
    with pytest.raises(ContentError, match=r"layers 5\.\.7 cannot be cut"):
        needed(tied, LayerRange(5, 7))


def test_pieces_survive_writing(smollm2: Path) -> None:
    manifest = manifest_of(smollm2)
    assert any(len(blob.pieces) > 20 for blob in manifest.blobs)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_hashing_can_be_given_up_between_chunks(tiny: Path) -> None:
    asked: list[bool] = []

    def give_up() -> None:
        asked.append(True)
        if len(asked) == len(whole.bundles):
            raise KeyboardInterrupt

    whole = manifest_of(tiny)
    with pytest.raises(KeyboardInterrupt):
        manifest_of(tiny, give_up)
