from dataclasses import replace
from pathlib import Path

import pytest

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.gguf import Value, encode_entry
from intelnav.store.layout import model_of, plan_slice
from intelnav.store.manifest import kv_blobs, manifest_of, needed
from intelnav.store.model_file import describe
from tests.models import tiny_model
from tests.store.holdings import Donor, donor_of


def texts(donor: Donor) -> tuple[bytes, bytes]:
    metadata, tokenizer = (donor.store.blob(blob) for blob in kv_blobs(donor.manifest, LayerRange(0, 1)))
    assert metadata is not None
    assert tokenizer is not None
    return metadata, tokenizer


@pytest.mark.parametrize("architecture", ["llama", "qwen2moe", "gemma3", "falcon"])
@pytest.mark.parametrize("layers", ["0..2", "0..6", "1..2", "2..5", "5..6"])
def test_a_slice_planned_from_its_manifest_is_that_planned_from_its_file(
    tmp_path: Path, architecture: str, layers: str
) -> None:
    taken = LayerRange.parse(layers)
    path = tiny_model(tmp_path / "model.gguf", architecture)
    with donor_of(path, tmp_path / "donor") as donor:
        metadata, tokenizer = texts(donor)
        model = model_of(donor.manifest, metadata, tokenizer if taken.start == 0 else None)
        plan = plan_slice(model, taken, donor.manifest.cid)
        other = plan_slice(describe(path), taken, donor.manifest.cid)
    assert plan.header == other.header
    assert (plan.bundles, plan.size) == (other.bundles, other.size)
    ends = [offset + size for _, offset, size in plan.bundles]
    assert [offset for _, offset, _ in plan.bundles] == [len(plan.header), *ends[:-1]]
    assert [size for _, _, size in plan.bundles if size] == [b.size for b in needed(donor.manifest, taken)]


def test_the_tokenizer_is_one_range_of_a_front_slice_and_no_part_of_another(donor: Donor) -> None:
    metadata, tokenizer = texts(donor)
    model = model_of(donor.manifest, metadata, tokenizer)
    assert plan_slice(model, LayerRange(0, 2), donor.manifest.cid).header.count(tokenizer) == 1
    assert b"tokenizer.ggml.tokens" not in plan_slice(model, LayerRange(1, 2), donor.manifest.cid).header


def test_what_contradicts_the_manifest_is_refused(donor: Donor) -> None:
    metadata, tokenizer = texts(donor)
    manifest = donor.manifest
    with pytest.raises(ContentError, match="not split by their keys"):
        model_of(manifest, metadata + tokenizer, None)
    with pytest.raises(ContentError, match="not split by their keys"):
        model_of(manifest, metadata, encode_entry("other", Value.integer(1)))
    for other in (replace(manifest, name="another"), replace(manifest, alignment=64)):
        with pytest.raises(ContentError, match="are not those of its metadata"):
            model_of(other, metadata, tokenizer)
    with pytest.raises(ContentError, match=r"at byte \d+"):
        model_of(manifest, metadata[:-1], tokenizer)
    with pytest.raises(ContentError, match="are those of a slice"):
        model_of(manifest, metadata + encode_entry("intelnav.model", Value.text(manifest.cid)), tokenizer)
    with pytest.raises(ContentError, match=r"layers 4\.\.7 cannot be cut"):
        plan_slice(model_of(manifest, metadata, tokenizer), LayerRange(4, 7), manifest.cid)


def test_a_model_without_a_tokenizer_has_an_empty_blob(tmp_path: Path) -> None:
    manifest = manifest_of(tiny_model(tmp_path / "m.gguf"))
    bare = replace(manifest, tokenizer=replace(manifest.tokenizer, size=0))
    assert kv_blobs(bare, LayerRange(0, 1)) == (manifest.metadata,)
