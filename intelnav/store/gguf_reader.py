"""Reading a GGUF header that anyone may have written.

Every count, length and offset is checked against the file before it is used, so that the time and memory spent
are bounded by `MAX_HEADER`, whatever the file claims. The rules are those of llama.cpp's own reader and stricter,
since that one is native code and must never see what is refused here.
"""

import mmap
import struct
from pathlib import Path

from intelnav.domain.errors import ConfigError, ContentError
from intelnav.store.gguf import (
    ARRAY_HEAD,
    DEFAULT_ALIGNMENT,
    FORMATS,
    MAGIC,
    Header,
    Tensor,
    Value,
    ValueType,
    padded,
)
from intelnav.store.tensor_types import TensorType, tensor_bytes

MAX_HEADER = 64 * 1024 * 1024
MAX_ENTRIES = 1 << 16
MAX_STRINGS = 1 << 22
MAX_KEY = (1 << 16) - 1
MAX_TENSOR_NAME = 63
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 16

_LENGTH = struct.Struct("<Q")


def read_header(path: Path) -> Header:
    """The header of the GGUF at `path`.

    Raises ConfigError if there is no readable file, ContentError with byte offset and reason if it is no sound GGUF.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 24:
                raise ContentError(f"{path}: {size} bytes are too few for a GGUF")
            with mmap.mmap(file.fileno(), min(size, MAX_HEADER), access=mmap.ACCESS_READ) as view:
                return parse_header(view, size)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from None


def parse_header(data: mmap.mmap | bytes, file_size: int) -> Header:
    """The header at the start of `data`, the first bytes of a file of `file_size` bytes; ContentError if unsound."""
    cursor = _Cursor(data)
    if cursor.take(4, "the magic") != MAGIC:
        raise ContentError("at byte 0: this is no GGUF, it does not start with 'GGUF'")
    version, tensor_count, value_count = cursor.unpack("<IQQ", "the counts")
    if version not in (2, 3):
        raise ContentError(
            f"at byte 4: GGUF version {version} is not supported, only little-endian 2 and 3 are"
        )
    if max(tensor_count, value_count) > MAX_ENTRIES:
        raise ContentError(
            f"at byte 8: {tensor_count} tensors and {value_count} metadata keys are claimed, {MAX_ENTRIES} are taken"
        )
    kv_start = cursor.at
    metadata: dict[str, Value] = {}
    for _ in range(value_count):
        _read_entry(cursor, metadata)
    kv_end = cursor.at
    alignment = alignment_of(metadata, kv_end)
    tensors = _tensors(cursor, tensor_count, alignment, file_size)
    return Header(metadata, tensors, alignment, kv_start, kv_end)


def parse_entries(data: bytes) -> dict[str, Value]:
    """The metadata in `data`, which holds entries and nothing else; ContentError if unsound."""
    if len(data) > MAX_HEADER:
        raise ContentError(f"{len(data)} bytes of metadata, at most {MAX_HEADER} are taken")
    cursor = _Cursor(data)
    metadata: dict[str, Value] = {}
    while cursor.at < len(data):
        if len(metadata) == MAX_ENTRIES:
            raise ContentError(f"at byte {cursor.at}: more than {MAX_ENTRIES} metadata keys")
        _read_entry(cursor, metadata)
    return metadata


def _read_entry(cursor: "_Cursor", metadata: dict[str, Value]) -> None:
    start = cursor.at
    key = cursor.string(MAX_KEY, "a metadata key")
    if not key or key in metadata:
        raise ContentError(f"at byte {start}: the metadata key {key!r} is {'repeated' if key else 'empty'}")
    metadata[key] = cursor.value(key)


def alignment_of(metadata: dict[str, Value], at: int) -> int:
    """What `general.alignment` says, bytes; ContentError if it is unsound. The metadata end at byte `at`."""
    value = metadata.get("general.alignment")
    if value is None:
        return DEFAULT_ALIGNMENT
    alignment = int(value.items[0]) if value.type is ValueType.U32 else 0
    if not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ContentError(
            f"before byte {at}: general.alignment must be a u32 power of two, 8 to {MAX_ALIGNMENT}"
        )
    return alignment


def _tensors(cursor: "_Cursor", count: int, alignment: int, file_size: int) -> tuple[Tensor, ...]:
    """The tensor infos. llama.cpp wants tensors back to back in the order of the infos, so overlaps cannot be."""
    found: list[tuple[int, str, tuple[int, ...], TensorType, int, int]] = []
    names: set[str] = set()
    expected = 0
    for _ in range(count):
        start = cursor.at
        name = cursor.string(MAX_TENSOR_NAME, "a tensor name")
        if not name or name in names:
            raise ContentError(
                f"at byte {start}: the tensor name {name!r} is {'repeated' if name else 'empty'}"
            )
        names.add(name)
        (dimensions,) = cursor.unpack("<I", "a number of dimensions")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ContentError(
                f"at byte {start}: tensor {name!r} has {dimensions} dimensions, 1 to 4 are possible"
            )
        shape = cursor.unpack(f"<{dimensions}Q", "a tensor's shape")
        number, offset = cursor.unpack("<IQ", "a tensor's type and offset")
        try:
            kind = TensorType(number)
            size = tensor_bytes(kind, shape)
        except ValueError:
            raise ContentError(f"at byte {start}: tensor {name!r} has the unknown type {number}") from None
        except ContentError as error:
            raise ContentError(f"at byte {start}: tensor {name!r}: {error}") from None
        if not 0 < size <= file_size:
            raise ContentError(
                f"at byte {start}: tensor {name!r} of shape {shape} cannot lie in {file_size} bytes"
            )
        if offset != expected:
            raise ContentError(
                f"at byte {start}: tensor {name!r} lies at {offset} of the data, but the one before it, "
                f"aligned to {alignment}, ends at {expected}"
            )
        expected += padded(size, alignment)
        found.append((start, name, shape, kind, offset, size))
    data = padded(cursor.at, alignment)
    for start, name, _, _, offset, size in found:
        if data + offset + size > file_size:
            raise ContentError(
                f"at byte {start}: tensor {name!r} ends at byte {data + offset + size}, the file at {file_size}"
            )
    return tuple(
        Tensor(name, shape, kind, data + offset, size) for _, name, shape, kind, offset, size in found
    )


class _Cursor:
    """A place in the header that only moves forwards, and never past the end."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        self._end = len(data)
        self.at = 0

    def take(self, size: int, what: str) -> bytes:
        start = self.at
        if size > self._end - start:
            raise ContentError(
                f"at byte {start}: {what} of {size} bytes runs past the end of the header or file"
            )
        self.at = start + size
        return self._data[start : self.at]

    def unpack(self, layout: str, what: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))

    def string(self, longest: int, what: str) -> str:
        start = self.at
        (size,) = self.unpack("<Q", what)
        if size > longest:
            raise ContentError(f"at byte {start}: {what} of {size} bytes, at most {longest} are taken")
        try:
            return self.take(size, what).decode()
        except UnicodeDecodeError:
            raise ContentError(f"at byte {start}: {what} is not UTF-8") from None

    def value(self, key: str) -> Value:
        start = self.at
        (number,) = self.unpack("<I", "a value type")
        body = self.at
        kind = self._type(number, start, key)
        if kind is ValueType.ARRAY:
            number, count = ARRAY_HEAD.unpack(self.take(ARRAY_HEAD.size, "an array's head"))
            element = self._type(number, body, key)
            if element is ValueType.ARRAY:
                raise ContentError(f"at byte {body}: {key!r} is an array of arrays")
            if element is ValueType.STRING:
                self._skip_strings(count, body, key)
            else:
                self.take(struct.calcsize(FORMATS[element]) * count, f"the array {key!r}")
        elif kind is ValueType.STRING:
            self._skip_strings(1, body, key)
        else:
            self.take(struct.calcsize(FORMATS[kind]), f"the value of {key!r}")
        return Value(kind, self._data[body : self.at])

    def _type(self, number: int, at: int, key: str) -> ValueType:
        try:
            return ValueType(number)
        except ValueError:
            raise ContentError(f"at byte {at}: {key!r} has the unknown value type {number}") from None

    def _skip_strings(self, count: int, start: int, key: str) -> None:
        at, end, length = self.at, self._end, _LENGTH
        if count > min(MAX_STRINGS, (end - at) // 8):
            raise ContentError(f"at byte {start}: {key!r} claims {count} strings, more than can follow")
        for _ in range(count):
            if at + 8 > end:
                break
            at += 8 + length.unpack_from(self._data, at)[0]
        else:
            if at <= end:
                self.at = at
                return
        raise ContentError(f"at byte {start}: the strings of {key!r} run past the end of the header or file")
