from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from intelnav.domain.errors import ConfigError
from intelnav.domain.model_ref import ModelRef
from intelnav.store.blobs import Store
from intelnav.store.catalog import Catalog, CatalogEntry
from intelnav.store.manifest import Manifest, manifest_of
from intelnav.store.names import Names, imported_file
from tests.models import tiny_model

ENVIRON = {"HF_ENDPOINT": "http://hub.example"}
ENTRY = CatalogEntry(
    name="catalogued",
    title="A tiny one",
    architecture="llama",
    blocks=6,
    quantisation="F32",
    origin="hf://owner/repo/tiny.gguf",
    license="MIT",
    cuts=(2, 4),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", None) as store:
        yield store


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("names") / "My Tiny.gguf")


@pytest.fixture(scope="module")
def manifest(path: Path) -> Manifest:
    return manifest_of(path)


def names(store: Store, **known: str | int) -> Names:
    """Names with a catalog of one, that knows this of its entry."""
    return Names(store, Catalog((replace(ENTRY, **known),)), ENVIRON)  # type: ignore[arg-type]


def ref(text: str) -> ModelRef:
    return ModelRef.parse(text)


def test_a_model_is_named_after_its_file_and_its_title(store: Store, path: Path, manifest: Manifest) -> None:
    store.add_file(manifest, path, None)
    assert names(store).of(manifest) == ["my-tiny", "tiny-llama"]
    for name in ("my-tiny", "tiny-llama", manifest.cid):
        assert names(store).find(ref(name)) == manifest
    assert names(store).find(ModelRef("path", str(path))) == manifest
    assert names(store).find(ModelRef("path", "/other.gguf")) is None


def test_a_model_without_a_file_has_its_title_for_a_name(store: Store, manifest: Manifest) -> None:
    store.add_manifest(manifest)
    assert names(store).of(manifest) == ["tiny-llama"]


def test_a_model_is_named_after_where_it_came_from(store: Store, path: Path, manifest: Manifest) -> None:
    own = imported_file(store, manifest.cid)
    own.write_bytes(path.read_bytes())
    store.add_file(manifest, own, "https://models.example/Other.gguf")
    assert names(store).of(manifest) == ["other", "tiny-llama"]
    assert names(store).find(ref("https://models.example/Other.gguf")) == manifest
    assert names(store).find(ref("https://models.example/unknown.gguf")) is None


@pytest.mark.parametrize("by", ["cid", "sha256", "origin"])
def test_the_catalogs_name_goes_first(store: Store, manifest: Manifest, by: str) -> None:
    store.add_manifest(manifest)
    known = {"cid": manifest.cid, "sha256": manifest.file.sha256}
    if by == "origin":
        store.add_origin(manifest.cid, "http://hub.example/owner/repo/resolve/main/tiny.gguf")
    named = names(store, **({by: known[by]} if by in known else {}))
    assert named.of(manifest)[0] == "catalogued"
    assert named.find(ref("catalogued")) == manifest
    if by == "origin":
        assert named.find(ref(ENTRY.origin)) == manifest


def test_what_is_not_here_may_be_in_the_catalog(store: Store, manifest: Manifest) -> None:
    named = names(store, cid=manifest.cid)
    for text in ("catalogued", ENTRY.origin, manifest.cid):
        found = named.find(ref(text))
        assert isinstance(found, CatalogEntry)
        assert found.name == "catalogued"
    assert names(store).find(ref(manifest.cid)) is None


def test_a_name_that_nothing_has_is_an_error_with_close_ones(store: Store, manifest: Manifest) -> None:
    store.add_manifest(manifest)
    with pytest.raises(ConfigError, match=r"no model is called catalogd; did you mean catalogued\?"):
        names(store).find(ref("catalogd"))
    with pytest.raises(ConfigError, match="no model is called zzz; known are: tiny-llama, catalogued"):
        names(store).find(ref("zzz"))


def test_a_name_that_two_models_have_is_an_error_with_both(
    store: Store, manifest: Manifest, tmp_path: Path
) -> None:
    other = manifest_of(tiny_model(tmp_path / "other.gguf", seed=1))
    store.add_manifest(manifest)
    store.add_manifest(other)
    with pytest.raises(ConfigError, match="tiny-llama means several models here") as caught:
        names(store).find(ref("tiny-llama"))
    assert manifest.cid in str(caught.value)
    assert other.cid in str(caught.value)
