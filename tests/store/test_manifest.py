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
from intelnav.store.manifest import MAX_MANIFEST, Manifest, manifest_of
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
        ("format", "intelnav/manifest/2", "not written canonically"),
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


def test_hashing_can_be_given_up_before_each_bundle(tiny: Path) -> None:
    asked: list[bool] = []

    def give_up() -> None:
        asked.append(True)
        if len(asked) == len(whole.bundles):
            raise KeyboardInterrupt

    whole = manifest_of(tiny)
    with pytest.raises(KeyboardInterrupt):
        manifest_of(tiny, give_up)
