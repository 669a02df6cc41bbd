"""What a reference stands for, and the file that is loaded for some of its layers."""

from pathlib import Path

import pytest

from intelnav.controller.shelf import Shelf
from intelnav.domain.errors import ConfigError, ContentError
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from intelnav.store.cut import cut
from intelnav.store.manifest import manifest_of
from tests.hub import serving
from tests.models import tiny_model

pytestmark = pytest.mark.anyio

LAYERS = LayerRange(1, 3)


async def put(shelf: Shelf, source: Path, layers: LayerRange) -> Path:
    model = await shelf.find(ModelRef("path", str(source)))
    return await shelf.put(model, layers, lambda _doing, _progress: None)


async def test_a_slice_is_put_together_once(source: Path, shelf: Shelf) -> None:
    path = await put(shelf, source, LAYERS)
    first = path.stat()
    assert await put(shelf, source, LAYERS) == path
    assert path.stat().st_ino == first.st_ino


async def test_a_file_with_just_these_layers_is_loaded_in_place(
    tmp_path: Path, source: Path, shelf: Shelf
) -> None:
    assert await put(shelf, source, LayerRange(0, 4)) == source
    piece = tmp_path / "piece.gguf"
    cut(source, LAYERS, piece, manifest_of(source).cid)
    assert await put(shelf, piece, LAYERS) == piece
    assert (await shelf.find(ModelRef("path", str(piece)))).cid == manifest_of(source).cid
    with pytest.raises(ConfigError, match=r"just layers 1\.\.3"):
        await put(shelf, piece, LayerRange(1, 2))


async def test_a_slice_from_the_store_is_the_one_that_is_cut_from_the_file(
    tmp_path: Path, source: Path, shelf: Shelf
) -> None:
    cut(source, LAYERS, tmp_path / "cut.gguf", manifest_of(source).cid)
    assert (await put(shelf, source, LAYERS)).read_bytes() == (tmp_path / "cut.gguf").read_bytes()


@pytest.mark.parametrize("layers", [LayerRange(0, 3), LayerRange(0, 2)])
async def test_an_architecture_that_is_not_proven_is_refused_whole_and_cut(
    tmp_path: Path, shelf: Shelf, layers: LayerRange
) -> None:
    source = tiny_model(tmp_path / "olmo2.gguf", "olmo2", blocks=3)
    with pytest.raises(ContentError, match="'olmo2'"):
        await put(shelf, source, layers)


async def test_a_file_that_turned_out_useless_is_not_downloaded_at_each_try(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as hub:
        hub.files["/olmo2.gguf"] = tiny_model(tmp_path / "olmo2.gguf", "olmo2", blocks=3).read_bytes()
        ref = ModelRef("url", hub.url("/olmo2.gguf"))
        for _ in range(3):
            with pytest.raises(ContentError, match="'olmo2'"):
                await shelf.find(ref)
        assert [path for path, _ in hub.asked].count("/olmo2.gguf") == 1
        monkeypatch.setattr("intelnav.controller.shelf.USELESS_SECONDS", 0.0)
        with pytest.raises(ContentError, match="'olmo2'"):
            await shelf.find(ref)
        assert [path for path, _ in hub.asked].count("/olmo2.gguf") == 2


async def test_a_page_in_the_place_of_a_manifest_hides_no_model(shelf: Shelf, tmp_path: Path) -> None:
    with serving() as hub:
        hub.files["/tiny.gguf"] = tiny_model(tmp_path / "tiny.gguf", "llama", blocks=3).read_bytes()
        hub.files["/tiny.gguf.manifest.json"] = b"<!DOCTYPE html><title>Welcome</title>"
        model = await shelf.find(ModelRef("url", hub.url("/tiny.gguf")))
    assert model.blocks == 3


async def test_a_whole_model_that_is_used_where_it_lies_is_wanted(source: Path, shelf: Shelf) -> None:
    await put(shelf, source, LayerRange(0, 4))
    assert shelf.wanted == {(manifest_of(source).cid, LayerRange(0, 4))}


async def test_a_model_is_known_by_its_layers_and_names_once_it_is_here(source: Path, shelf: Shelf) -> None:
    ref = ModelRef("path", str(source))
    assert shelf.blocks_of(ref) is None
    assert shelf.names_of(ref) == []
    model = await shelf.find(ref)
    assert shelf.blocks_of(ref) == shelf.blocks_of(ModelRef("cid", model.cid)) == 4
    assert "tiny" in shelf.names_of(ref)
