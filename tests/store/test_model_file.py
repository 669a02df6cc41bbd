from dataclasses import replace
from pathlib import Path

import pytest

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.cut import cut
from intelnav.store.gguf import Header, Value, encode_header
from intelnav.store.gguf_reader import read_header
from intelnav.store.model_file import describe

CID = "b3-" + "a" * 52


def rewritten(source: Path, target: Path, **changes: Value | None) -> Path:
    """A copy of a model with other metadata; dots in keys are written as two underscores."""
    header: Header = read_header(source)
    metadata = header.metadata | {
        key.replace("__", "."): value for key, value in changes.items() if value is not None
    }
    for key in (key.replace("__", ".") for key, value in changes.items() if value is None):
        del metadata[key]
    data = header.tensors[0].offset
    tensors = [replace(tensor, offset=tensor.offset - data) for tensor in header.tensors]
    target.write_bytes(encode_header(metadata, tensors, header.alignment) + source.read_bytes()[data:])
    return target


def test_a_whole_model_is_described_from_its_header(tiny: Path) -> None:
    model = describe(tiny)
    assert (model.name, model.architecture, model.blocks, model.layers) == (
        "tiny llama",
        "llama",
        6,
        LayerRange(0, 6),
    )
    assert (model.width, model.context, model.has_tokenizer, model.is_whole, model.model) == (
        64,
        512,
        True,
        True,
        None,
    )


def test_a_slice_says_which_layers_of_which_model_it_holds(tiny: Path, tmp_path: Path) -> None:
    cut(tiny, LayerRange(2, 5), tmp_path / "slice.gguf", CID)
    piece = describe(tmp_path / "slice.gguf")
    assert (piece.blocks, piece.layers, piece.model) == (6, LayerRange(2, 5), CID)
    assert not piece.is_whole
    assert not piece.has_tokenizer


def test_a_slice_gives_itself_alone_and_a_whole_model_any_range_within(tiny: Path, tmp_path: Path) -> None:
    cut(tiny, LayerRange(2, 5), tmp_path / "slice.gguf", CID)
    whole, piece = describe(tiny), describe(tmp_path / "slice.gguf")
    ranges = [LayerRange(0, 6), LayerRange(2, 5), LayerRange(2, 4), LayerRange(4, 7)]
    assert [whole.can_give(layers) for layers in ranges] == [True, True, True, False]
    assert [piece.can_give(layers) for layers in ranges] == [False, True, False, False]


@pytest.mark.parametrize("name", [None, Value.text(""), Value.text("  ")], ids=["missing", "empty", "blank"])
def test_a_model_without_a_name_is_unnamed(tiny: Path, tmp_path: Path, name: Value | None) -> None:
    assert describe(rewritten(tiny, tmp_path / "m.gguf", general__name=name)).name == "unnamed"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("general.architecture", None, "'general.architecture' must hold a string"),
        ("general.architecture", Value.text("x" * 200), "has 200 characters"),
        ("llama.block_count", None, "'llama.block_count' must hold a whole number"),
        ("llama.block_count", Value.integer(5), "the tensors are not those of blocks 0 to 4"),
        ("llama.block_count", Value.integer(0), "1 to 512 are possible"),
        ("llama.block_count", Value.integer(100_000), "1 to 512 are possible"),
        ("llama.embedding_length", Value.integer(32), "no tensor token_embd.weight with rows of 32 values"),
        ("llama.context_length", Value.text("long"), "'llama.context_length' must hold a whole number"),
        ("intelnav.layer_start", Value.integer(1), "layers 1..6 of 6 do not agree with the 6 blocks"),
        ("intelnav.layer_end", Value.integer(7), "layers 0..7 of 6 do not agree"),
        ("intelnav.block_count", Value.integer(5), "layers 0..6 of 5 do not agree"),
        ("intelnav.model", Value.text("../../etc/passwd"), "intelnav.model is no model id"),
    ],
)
def test_metadata_that_contradict_the_file_are_refused(
    tiny: Path, tmp_path: Path, key: str, value: Value | None, reason: str
) -> None:
    broken = rewritten(tiny, tmp_path / "broken.gguf", **{key.replace(".", "__"): value})
    with pytest.raises(ContentError, match=reason) as caught:
        describe(broken)
    assert str(broken) in str(caught.value)


def test_an_embedding_that_is_no_table_is_refused(tiny: Path, tmp_path: Path) -> None:
    header, data = read_header(tiny), tiny.read_bytes()
    start = header.tensors[0].offset
    rows = header.tensors[0].shape[1]
    tensors = [replace(t, offset=t.offset - start) for t in header.tensors]
    tensors[0] = replace(tensors[0], shape=(64, rows // 3, 3))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(encode_header(header.metadata, tensors, header.alignment) + data[start:])
    with pytest.raises(ContentError, match=r"token_embd.weight of shape \(64, \d+, 3\) is no table"):
        describe(broken)
