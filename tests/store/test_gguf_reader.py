import struct
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intelnav.domain.errors import ConfigError, ContentError
from intelnav.store.gguf import Value, ValueType
from intelnav.store.gguf_reader import MAX_ENTRIES, MAX_HEADER, parse_entries, parse_header, read_header

# Sparse files stand for large ones.
TERABYTE = 1 << 40


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def key_value(key: str | bytes, kind: int, raw: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + raw


def tensor(name: str = "t", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file_of(values: list[bytes], tensors: list[bytes], data: int = 64, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values)) + b"".join(values + tensors)
    return head.ljust(-(-len(head) // 32) * 32, b"\0") + bytes(data)


def array(element: int, count: int, raw: bytes = b"") -> bytes:
    return struct.pack("<IQ", element, count) + raw


ONE = key_value("one", ValueType.U32, struct.pack("<I", 1))


def aligned_to(number: int, kind: int = ValueType.U32) -> bytes:
    return file_of([key_value("general.alignment", kind, struct.pack("<I", number))], [])


def parse(data: bytes) -> None:
    parse_header(data, len(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"GGML" + bytes(60), r"at byte 0: .* does not start with 'GGUF'", id="another magic"),
        pytest.param(
            file_of([ONE], [], version=1), "at byte 4: GGUF version 1 is not supported", id="old version"
        ),
        pytest.param(b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(8), "version 50331648", id="big-endian"),
        pytest.param(
            b"GGUF" + struct.pack("<IQQ", 3, 1 << 63, 0),
            "at byte 8: 9223372036854775808 tensors",
            id="tensors",
        ),
        pytest.param(b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "1099511627776 metadata keys", id="keys"),
        pytest.param(
            b"GGUF" + struct.pack("<IQQ", 3, 0, 9) + bytes(8), "at byte 24: .* '' is empty", id="empty key"
        ),
        pytest.param(file_of([ONE, ONE], []), "'one' is repeated", id="repeated key"),
        pytest.param(
            file_of([key_value(b"\xff", 4, bytes(4))], []),
            "at byte 24: a metadata key is not UTF-8",
            id="no UTF-8",
        ),
        pytest.param(
            file_of([key_value("k" * 70_000, 4, bytes(4))], []), "at most 65535 are taken", id="long key"
        ),
        pytest.param(
            file_of([key_value("k", 13, bytes(4))], []), "'k' has the unknown value type 13", id="value type"
        ),
        pytest.param(
            file_of([key_value("k", 8, struct.pack("<Q", TERABYTE))], []),
            "run past the end",
            id="long string",
        ),
        pytest.param(
            file_of([key_value("k", 8, struct.pack("<Q", 2**64 - 1))], []),
            "run past the end",
            id="2**64 string",
        ),
        pytest.param(
            file_of([key_value("k", 9, array(0, TERABYTE))], []), "runs past the end", id="long array"
        ),
        pytest.param(
            file_of([key_value("k", 9, array(8, TERABYTE))], []),
            "claims 1099511627776 strings",
            id="many strings",
        ),
        pytest.param(
            file_of([key_value("k", 9, array(8, 2, text("a") + struct.pack("<Q", 999)))], []),
            "run past the end",
            id="few strings",
        ),
        pytest.param(
            file_of([key_value("k", 9, array(9, 1))], []), "'k' is an array of arrays", id="nested array"
        ),
        pytest.param(
            file_of([key_value("k", 9, array(77, 1))], []), "unknown value type 77", id="element type"
        ),
        pytest.param(aligned_to(0), "general.alignment must be", id="alignment 0"),
        pytest.param(aligned_to(48), "general.alignment must be", id="alignment 48"),
        pytest.param(aligned_to(1 << 30), "general.alignment must be", id="huge alignment"),
        pytest.param(
            aligned_to(32, ValueType.I32), "general.alignment must be", id="alignment of another type"
        ),
        pytest.param(
            file_of([], [tensor(), tensor(offset=32)]), "tensor name 't' is repeated", id="repeated tensor"
        ),
        pytest.param(file_of([], [tensor(name="")]), "tensor name '' is empty", id="nameless tensor"),
        pytest.param(file_of([], [tensor(name="n" * 64)]), "at most 63 are taken", id="long tensor name"),
        pytest.param(file_of([], [tensor(shape=())]), "has 0 dimensions", id="no dimensions"),
        pytest.param(file_of([], [tensor(shape=(1,) * 5)]), "has 5 dimensions", id="five dimensions"),
        pytest.param(file_of([], [tensor(shape=(0,))]), r"shape \(0,\) cannot lie in", id="no elements"),
        pytest.param(file_of([], [tensor(shape=(1 << 62, 1 << 62))]), "cannot lie in", id="absurd shape"),
        pytest.param(file_of([], [tensor(kind=4)]), "unknown type 4", id="removed type"),
        pytest.param(
            file_of([], [tensor(kind=2)]), "rows of 8 values do not divide into Q4_0", id="broken block"
        ),
        pytest.param(
            file_of([], [tensor(), tensor("u", offset=0)]),
            "'u' lies at 0 of the data, .* ends at 32",
            id="overlap",
        ),
        pytest.param(
            file_of([], [tensor(), tensor("u", offset=64)]), "'u' lies at 64 of the data", id="hole"
        ),
        pytest.param(file_of([], [tensor(offset=4)]), "'t' lies at 4 of the data", id="misaligned tensor"),
        pytest.param(file_of([], [tensor(offset=2**64 - 32)]), "of the data, but", id="absurd offset"),
        pytest.param(
            file_of([], [tensor(shape=(24,))]), "ends at byte 160, the file at 128", id="past the end"
        ),
    ],
)
def test_a_hostile_header_is_refused_with_place_and_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ContentError, match=reason) as caught:
        parse(data)
    assert " byte " in str(caught.value)


def test_the_most_strings_that_are_taken_are_walked_in_bounded_time(tmp_path: Path) -> None:
    path = tmp_path / "empty-strings.gguf"
    with path.open("wb") as file:
        file.write(file_of([key_value("k", 9, array(8, 1 << 22))], []))
        file.truncate(TERABYTE)
    started = time.monotonic()
    assert read_header(path).metadata["k"].count == 1 << 22
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "claim",
    [
        lambda: file_of([key_value("k", 9, array(8, 1 << 23))], []),
        lambda: file_of([key_value("k", 9, array(0, 1 << 50))], []),
        lambda: file_of([], [tensor(shape=(1 << 50,))]),
    ],
    ids=["strings", "bytes", "tensor"],
)
def test_claims_as_large_as_the_file_cost_no_time(tmp_path: Path, claim: Callable[[], bytes]) -> None:
    path = tmp_path / "large.gguf"
    with path.open("wb") as file:
        file.write(claim())
        file.truncate(TERABYTE)
    started = time.monotonic()
    with pytest.raises(ContentError):
        read_header(path)
    assert time.monotonic() - started < 5


def test_a_real_header_is_read_as_the_gguf_package_reads_it(tiny: Path) -> None:
    header, theirs = read_header(tiny), gguf.GGUFReader(tiny)
    assert [(t.name, t.shape, int(t.type), t.offset, t.size) for t in header.tensors] == [
        (t.name, tuple(int(n) for n in t.shape), int(t.tensor_type), t.data_offset, t.n_bytes)
        for t in theirs.tensors
    ]
    assert set(header.metadata) == {key for key in theirs.fields if not key.startswith("GGUF.")}
    assert header.integer("llama.block_count") == 6
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert (tokens.element, tokens.count) == (
        ValueType.STRING,
        len(theirs.fields["tokenizer.ggml.tokens"].data),
    )


def test_version_2_is_read_too(tiny: Path) -> None:
    data = bytearray(tiny.read_bytes())
    data[4] = 2
    assert parse_header(bytes(data), len(data)) == read_header(tiny)


def test_a_large_vocabulary_is_read_at_once(smollm2: Path) -> None:
    started = time.monotonic()
    header = read_header(smollm2)
    assert time.monotonic() - started < 1
    assert header.metadata["tokenizer.ggml.tokens"].count == 49152


def test_a_file_that_cannot_be_read_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.gguf: cannot be read: No such file"):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_header(tmp_path)


@pytest.mark.parametrize("size", [0, 4, 23])
def test_a_file_too_short_for_a_header_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(b"GGUF".ljust(24, b"\0")[:size])
    with pytest.raises(ContentError, match=f"{size} bytes are too few"):
        read_header(path)


# Small enough to mutate all of it: two values, an array, two tensors.
SOUND = file_of(
    [ONE, key_value("s", 8, text("word")), key_value("a", 9, array(8, 2, text("x") + text("yy")))],
    [tensor(), tensor("u", (4, 2), offset=32)],
)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_any_mutation_is_read_or_refused(data: st.DataObject) -> None:
    mutated = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 8))
        number = data.draw(st.sampled_from([0, 1, 2, 7, 255, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1]))
        width = data.draw(st.sampled_from([1, 4, 8]))
        mutated[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    mutated = mutated[: data.draw(st.integers(24, len(mutated)))]
    try:
        header = parse_header(bytes(mutated), len(mutated))
    except ContentError:
        return
    assert all(t.offset + t.size <= len(mutated) for t in header.tensors)
    for value in header.metadata.values():
        assert value.count >= 0
        assert isinstance(value, Value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ContentError):
        parse_header(b"GGUF\x03\0\0\0\x01" + data, len(data) + 9)


def test_entries_are_read_without_a_header() -> None:
    two = key_value("two", ValueType.STRING, text("zwei"))
    assert parse_entries(ONE + two) == {"one": Value.integer(1), "two": Value.text("zwei")}
    assert parse_entries(b"") == {}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(ONE + ONE, "'one' is repeated", id="a key twice"),
        pytest.param(ONE[:-1], "runs past the end", id="cut off"),
        pytest.param(ONE + b"\0", "runs past the end", id="a byte too many"),
        pytest.param(text(""), "is empty", id="no key"),
        pytest.param(bytes(MAX_HEADER + 1), "at most 67108864 are taken", id="too long"),
        pytest.param(
            b"".join(key_value(str(n), ValueType.U8, b"\0") for n in range(MAX_ENTRIES + 1)),
            "more than 65536 metadata keys",
            id="too many",
        ),
    ],
)
def test_hostile_entries_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ContentError, match=reason):
        parse_entries(data)
