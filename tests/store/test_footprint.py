from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.cut import cut
from intelnav.store.footprint import cache_bytes, weights_bytes
from intelnav.store.gguf import ARRAY_HEAD, Value, ValueType, encode_header
from intelnav.store.gguf_reader import read_header
from intelnav.store.model_file import describe
from tests.models import HEAD, KV_HEADS, tiny_model

CID = "b3-" + "a" * 52


def with_array(path: Path, key: str, items: list[Any]) -> Path:
    """The model, with an array for a value of its metadata."""
    header, data = read_header(path), path.read_bytes()
    first = items[0] if items else 0
    if isinstance(first, str):
        text = b"".join(Value.text(item).raw for item in items)
        value = Value(ValueType.ARRAY, ARRAY_HEAD.pack(ValueType.STRING, len(items)) + text)
    else:
        value = Value.array(ValueType.F32 if isinstance(first, float) else ValueType.I32, items)
    start = header.tensors[0].offset
    tensors = [replace(tensor, offset=tensor.offset - start) for tensor in header.tensors]
    path.write_bytes(encode_header(header.metadata | {key: value}, tensors, header.alignment) + data[start:])
    return path


def test_weights_are_the_tensors_of_the_layers_and_their_ends(tiny: Path, tmp_path: Path) -> None:
    whole = describe(tiny)
    for layers in (LayerRange(0, 2), LayerRange(2, 3), LayerRange(3, 6)):
        cut(tiny, layers, tmp_path / "slice.gguf", CID)
        piece = describe(tmp_path / "slice.gguf")
        # What a slice makes up for the loader is all that may differ.
        assert 0 <= weights_bytes(piece, layers) - weights_bytes(whole, layers) < 4096
    assert weights_bytes(whole, LayerRange(0, 6)) <= tiny.stat().st_size


def test_a_cache_holds_keys_and_values_of_every_layer_session_and_token(tiny: Path) -> None:
    one = 2 * 2 * HEAD * KV_HEADS
    model = describe(tiny)
    assert cache_bytes(model, LayerRange(0, 1), 256, 1) == 256 * one
    assert cache_bytes(model, LayerRange(1, 4), 256, 8) == 3 * 8 * 256 * one
    assert cache_bytes(model, LayerRange(0, 1), 257, 2) == 2 * 512 * one


def test_a_slice_and_its_model_need_the_same_cache(tiny: Path, tmp_path: Path) -> None:
    layers = LayerRange(2, 5)
    cut(tiny, layers, tmp_path / "slice.gguf", CID)
    assert cache_bytes(describe(tmp_path / "slice.gguf"), layers, 512, 4) == cache_bytes(
        describe(tiny), layers, 512, 4
    )


def test_heads_are_counted_layer_by_layer(tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "m.gguf", extra={"attention.head_count_kv": [1, 2, 4, 1, 2, 4]})
    model = describe(source)
    one = 2 * 2 * HEAD * 256
    assert cache_bytes(model, LayerRange(1, 3), 256, 1) == (2 + 4) * one
    cut(source, LayerRange(1, 3), tmp_path / "slice.gguf", CID)
    assert cache_bytes(describe(tmp_path / "slice.gguf"), LayerRange(1, 3), 256, 1) == (2 + 4) * one


def test_key_and_value_lengths_of_the_metadata_count(tmp_path: Path) -> None:
    extra = {"attention.key_length": 40, "attention.value_length": 24}
    model = describe(tiny_model(tmp_path / "m.gguf", extra=extra))
    assert cache_bytes(model, LayerRange(0, 1), 256, 1) == 2 * (40 + 24) * KV_HEADS * 256


@pytest.mark.parametrize(
    "numbers",
    [[], [1, 2], [float("nan")] * 6, [float("inf")] * 6, [2, 2, 2, 2, 2, -1], ["2"] * 6],
    ids=["none", "too few", "NaN", "infinite", "negative", "text"],
)
@pytest.mark.parametrize("key", ["attention.head_count", "attention.head_count_kv"])
def test_heads_that_are_no_number_for_each_layer_are_refused(
    tmp_path: Path, key: str, numbers: list[Any]
) -> None:
    source = with_array(tiny_model(tmp_path / "m.gguf"), f"llama.{key}", numbers)
    model = describe(source)
    with pytest.raises(ContentError, match=f"llama.{key} must hold 6 whole numbers"):
        cache_bytes(model, LayerRange(0, 1), 256, 1)
    with pytest.raises(ContentError, match=f"llama.{key} must hold 6 whole numbers"):
        cut(source, LayerRange(0, 2), tmp_path / "slice.gguf", CID)


def test_a_header_without_heads_is_refused(tmp_path: Path) -> None:
    model = describe(tiny_model(tmp_path / "m.gguf", extra={"attention.head_count": None}))
    with pytest.raises(ContentError, match=r"llama\.attention\.head_count"):
        cache_bytes(model, LayerRange(0, 1), 256, 1)
