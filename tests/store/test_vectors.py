"""The vectors for manifests and slices in tests/vectors; its README says what the fields mean."""

import re
from pathlib import Path
from typing import Any

import pytest

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.blobs import Store
from intelnav.store.layout import model_of, plan_slice
from intelnav.store.manifest import Manifest
from tests.vectors.files import read_vectors

VECTORS = read_vectors("manifests")
GOOD = VECTORS["good"]
PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def manifest() -> Manifest:
    return Manifest.from_bytes(bytes.fromhex(GOOD["manifest"]))


def test_a_good_manifest_has_its_cid() -> None:
    assert manifest().cid == GOOD["cid"]
    assert manifest().to_bytes().hex() == GOOD["manifest"]


@pytest.mark.parametrize("case", VECTORS["bad"], ids=lambda case: case["name"])
def test_a_bad_manifest_is_refused(case: Any) -> None:
    with pytest.raises(ContentError):
        Manifest.from_bytes(bytes.fromhex(case["manifest"]))
    assert re.search(rf"^\[{case['rule']}\]", PROTOCOL, re.MULTILINE)


@pytest.mark.parametrize("case", GOOD["slices"], ids=lambda case: "{}..{}".format(*case["layers"]))
def test_a_slice_is_laid_out_as_it_should_be_and_can_be_made(case: Any, tmp_path: Path) -> None:
    layers = LayerRange(*case["layers"])
    metadata, tokenizer = bytes.fromhex(GOOD["metadata"]), bytes.fromhex(GOOD["tokenizer"])
    model = model_of(manifest(), metadata, tokenizer if layers.start == 0 else None)
    plan = plan_slice(model, layers, GOOD["cid"])
    assert plan.header.hex() == case["header"]
    assert [list(place) for place in plan.bundles] == case["bundles"]
    assert plan.size == case["size"]
    with Store.open(tmp_path / "store", None) as store:
        store.put_blob(manifest().metadata, metadata)
        store.put_blob(manifest().tokenizer, tokenizer)
        partial = store.begin(manifest(), layers)
        for blob, index in partial.missing():
            start, end = blob.bounds(index)
            partial.write(blob, index, bytes(end - start))
        path = partial.finish()
        assert path.read_bytes() == bytes.fromhex(case["header"]).ljust(case["size"], b"\0")
