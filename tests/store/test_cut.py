import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gguf
import pytest

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.bundles import bundles_of, slice_bundles
from intelnav.store.cut import cut
from intelnav.store.gguf import Tensor, encode_header
from intelnav.store.gguf_reader import read_header
from intelnav.store.model_file import ModelFile, describe
from intelnav.store.tensor_types import TensorType
from tests.models import tiny_model

CID = "b3-" + "a" * 52


def cut_at(source: Path, text: str, folder: Path) -> Path:
    target = folder / f"{text}.gguf"
    cut(source, LayerRange.parse(text), target, CID)
    return target


def contents(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    return {t.name: data[t.offset : t.offset + t.size] for t in describe(path).header.tensors}


def metadata(path: Path) -> dict[str, object]:
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


@pytest.mark.parametrize("layers", ["0..1", "0..4", "1..2", "2..5", "4..6", "5..6"])
def test_a_slice_holds_the_bytes_of_its_layers_under_new_numbers(
    tiny: Path, tmp_path: Path, layers: str
) -> None:
    piece = cut_at(tiny, layers, tmp_path)
    taken = LayerRange.parse(layers)
    whole, held = contents(tiny), contents(piece)
    blocks = {name: data for name, data in held.items() if name.startswith("blk.")}
    assert len(blocks) == len(taken) * 9
    for name, data in blocks.items():
        index, rest = name.removeprefix("blk.").split(".", 1)
        assert data == whole[f"blk.{int(index) + taken.start}.{rest}"]
    assert held["rope_freqs.weight"] == whole["rope_freqs.weight"]
    theirs = {t.name: bytes(t.data) for t in gguf.GGUFReader(piece).tensors}
    assert theirs == held


def test_a_front_slice_has_tokenizer_and_embedding_but_no_head(tiny: Path, tmp_path: Path) -> None:
    piece = cut_at(tiny, "0..2", tmp_path)
    assert contents(piece)["token_embd.weight"] == contents(tiny)["token_embd.weight"]
    assert "output.weight" not in contents(piece)
    whole, held = metadata(tiny), metadata(piece)
    tokenizer = [key for key in whole if key.startswith("tokenizer.")]
    assert tokenizer
    assert {key: held[key] for key in tokenizer} == {key: whole[key] for key in tokenizer}


def test_a_middle_slice_has_neither_tokenizer_nor_vocabulary(tiny: Path, tmp_path: Path) -> None:
    piece = cut_at(tiny, "2..4", tmp_path)
    held = metadata(piece)
    assert [key for key in held if key.startswith("tokenizer.")] == ["tokenizer.ggml.model"]
    assert held["tokenizer.ggml.model"] == "no_vocab"
    assert held["llama.vocab_size"] == 32
    assert not any(contents(piece)["token_embd.weight"])


def test_the_head_of_an_untied_tail_poses_as_its_embedding(tiny: Path, tmp_path: Path) -> None:
    whole, held = contents(tiny), contents(cut_at(tiny, "4..6", tmp_path))
    assert held["token_embd.weight"] == whole["output.weight"]
    assert held["output_norm.weight"] == whole["output_norm.weight"]
    assert "output.weight" not in held


def test_a_tied_tail_has_the_embedding_as_its_head(tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "tied.gguf", tied=True)
    whole, held = contents(source), contents(cut_at(source, "4..6", tmp_path))
    assert held["token_embd.weight"] == whole["token_embd.weight"]
    assert metadata(tmp_path / "4..6.gguf")["llama.vocab_size"] == describe(source).header.tensors[0].shape[1]


def test_a_tail_whose_loader_wants_both_gets_an_embedding_that_takes_no_room(tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "qwen2moe.gguf", "qwen2moe")
    whole, piece = contents(source), cut_at(source, "4..6", tmp_path)
    held = contents(piece)
    assert held["output.weight"] == whole["output.weight"]
    assert not any(held["token_embd.weight"])
    assert len(held["token_embd.weight"]) < len(whole["token_embd.weight"]) / 7


def test_a_head_with_scales_of_its_own_keeps_its_name(tiny: Path, tmp_path: Path) -> None:
    header, data = read_header(tiny), tiny.read_bytes()
    start = header.tensors[0].offset
    tensors = [replace(t, offset=t.offset - start) for t in header.tensors]
    tensors.append(Tensor("output.scale", (1,), TensorType.F32, len(data) - start, 4))
    source = tmp_path / "scaled.gguf"
    source.write_bytes(encode_header(header.metadata, tensors, 32) + data[start:] + bytes(32))
    held = contents(cut_at(source, "4..6", tmp_path))
    assert held["output.weight"] == contents(tiny)["output.weight"]
    assert not any(held["token_embd.weight"])


def test_a_slice_is_labelled(tiny: Path, tmp_path: Path) -> None:
    held = metadata(cut_at(tiny, "2..5", tmp_path))
    assert held["intelnav.model"] == CID
    assert (held["intelnav.layer_start"], held["intelnav.layer_end"], held["intelnav.block_count"]) == (
        2,
        5,
        6,
    )
    assert held["llama.block_count"] == 3
    assert held["general.name"] == "tiny llama"


def _ends(model: ModelFile) -> list[tuple[int, int]]:
    return [(tensor.offset, tensor.offset + tensor.size) for tensor in model.header.tensors]


@pytest.mark.parametrize("layers", ["0..3", "2..4", "3..6"])
def test_bundles_lie_in_order_and_without_gaps(tiny: Path, tmp_path: Path, layers: str) -> None:
    path = cut_at(tiny, layers, tmp_path)
    piece = describe(path)
    bundles = slice_bundles(describe(tiny), LayerRange.parse(layers))
    assert sum(bundle.size for bundle in bundles) <= path.stat().st_size
    assert all(0 <= later - end < 32 for (_, end), (later, _) in pairwise(_ends(piece)))
    expected = [tensor for bundle in bundles for tensor in bundle.tensors]
    assert [t.shape for t in piece.header.tensors[: len(expected)]] == [t.shape for t in expected]


def test_the_whole_range_takes_every_bundle(tiny: Path) -> None:
    model = describe(tiny)
    assert slice_bundles(model, LayerRange(0, 6)) == bundles_of(model)


def test_layers_that_the_model_does_not_have_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ContentError, match=r"layers 4\.\.7 cannot be cut from a model of 6 layers"):
        cut_at(tiny, "4..7", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_slice_is_not_cut_again(tiny: Path, tmp_path: Path) -> None:
    piece = cut_at(tiny, "0..4", tmp_path)
    with pytest.raises(ContentError, match=r"is itself a slice, 0\.\.4 of 6 layers"):
        cut_at(piece, "0..2", tmp_path)


def test_a_cut_that_fails_leaves_what_was_there(tiny: Path, tmp_path: Path) -> None:
    shortened = tmp_path / "short.gguf"
    data = bytearray(tiny.read_bytes())
    shortened.write_bytes(data[: len(data) // 2])
    target = tmp_path / "slice.gguf"
    target.write_bytes(b"as it was")
    with pytest.raises(ContentError, match=r"ends at byte \d+, the file at"):
        cut(shortened, LayerRange(0, 2), target, CID)
    assert target.read_bytes() == b"as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["short.gguf", "slice.gguf"]


def test_a_cut_that_is_given_up_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    left: list[list[str]] = []

    def give_up() -> None:
        left.append([path.name for path in tmp_path.iterdir()])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut(tiny, LayerRange(0, 2), tmp_path / "slice.gguf", CID, give_up)
    assert left == [[f".slice.gguf.{os.getpid()}.part"]]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_os_error(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cut(tiny, LayerRange(0, 2), tmp_path / "none" / "slice.gguf", CID)


def test_the_real_model_is_cut(smollm2: Path, tmp_path: Path) -> None:
    piece = cut_at(smollm2, "8..15", tmp_path)
    whole, held = contents(smollm2), contents(piece)
    assert describe(piece).layers == LayerRange(8, 15)
    for name, data in held.items():
        if name.startswith("blk."):
            index, rest = name.removeprefix("blk.").split(".", 1)
            assert data == whole[f"blk.{int(index) + 8}.{rest}"]
    taken = sum(bundle.size for bundle in slice_bundles(describe(smollm2), LayerRange(8, 15)))
    assert piece.stat().st_size <= 1.05 * taken
