from pathlib import Path

import gguf
import numpy as np
import pytest

from intelnav.domain.errors import ContentError
from intelnav.store.gguf import Header, Tensor, Value, ValueType, encode_header, padded
from intelnav.store.gguf_reader import read_header
from intelnav.store.tensor_types import TensorType


def test_values_know_their_elements() -> None:
    array = Value.array(ValueType.BOOL, [True, False, True])
    assert (array.type, array.element, array.count, array.items) == (
        ValueType.ARRAY,
        ValueType.BOOL,
        3,
        [True, False, True],
    )
    number = Value.integer(7)
    assert (number.type, number.element, number.count, number.items) == (ValueType.U32, ValueType.U32, 1, [7])
    with pytest.raises(ContentError, match="a string stands where a number is wanted"):
        _ = Value.text("seven").items


def test_a_header_gives_only_what_it_was_asked_for() -> None:
    header = Header({"n": Value.integer(3), "s": Value.text("é")}, (), 32, 0, 0)
    assert header.integer("n") == 3
    assert header.text("s") == "é"
    assert (header.integer("none", 5), header.text("none", "x")) == (5, "x")
    for key in ("s", "none"):
        with pytest.raises(ContentError, match=f"'{key}' must hold a whole number"):
            header.integer(key)
    for key in ("n", "none"):
        with pytest.raises(ContentError, match=f"'{key}' must hold a string"):
            header.text(key)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("blk.0.attn_q.weight", 0),
        ("blk.12.ffn_norm.weight", 12),
        ("token_embd.weight", None),
        ("blk.x.y", None),
        ("blk.1", None),
    ],
)
def test_a_tensor_knows_its_block(name: str, block: int | None) -> None:
    assert Tensor(name, (1,), TensorType.F32, 0, 4).block == block


@pytest.mark.parametrize(("size", "room"), [(0, 0), (1, 32), (32, 32), (33, 64)])
def test_padding_fills_up_to_the_alignment(size: int, room: int) -> None:
    assert padded(size, 32) == room


def test_what_is_written_is_read_alike_by_the_gguf_package_and_by_us(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": Value.text("llama"),
        "some.flags": Value.array(ValueType.BOOL, [True, False]),
        "some.number": Value.integer(-3, ValueType.I64),
    }
    rows = np.arange(24, dtype=np.float32).reshape(3, 8)
    tensor = Tensor("rows", (8, 3), TensorType.F32, 0, rows.nbytes)
    file = tmp_path / "written.gguf"
    file.write_bytes(encode_header(metadata, [tensor], 32) + rows.tobytes())

    theirs = gguf.GGUFReader(file)
    assert theirs.fields["general.architecture"].contents() == "llama"
    assert theirs.fields["some.flags"].contents() == [True, False]
    assert theirs.fields["some.number"].contents() == -3
    assert np.array_equal(theirs.tensors[0].data, rows)
    ours = read_header(file)
    assert ours.metadata == metadata
    assert [(t.name, t.shape, t.offset) for t in ours.tensors] == [
        ("rows", (8, 3), theirs.tensors[0].data_offset)
    ]
