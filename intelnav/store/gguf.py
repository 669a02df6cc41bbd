"""The GGUF format, version 3: its nouns, and how a header is written. `gguf_reader` reads one.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from intelnav.domain.errors import ContentError
from intelnav.store.tensor_types import TensorType

MAGIC = b"GGUF"
VERSION = 3
DEFAULT_ALIGNMENT = 32


class ValueType(IntEnum):
    """The type of a metadata value."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


FORMATS = {
    ValueType.U8: "B",
    ValueType.I8: "b",
    ValueType.U16: "H",
    ValueType.I16: "h",
    ValueType.U32: "I",
    ValueType.I32: "i",
    ValueType.F32: "f",
    ValueType.BOOL: "?",
    ValueType.U64: "Q",
    ValueType.I64: "q",
    ValueType.F64: "d",
}
INTEGERS = frozenset(FORMATS) - {ValueType.F32, ValueType.F64, ValueType.BOOL}

# In front of an array's elements: their type and their count.
ARRAY_HEAD = struct.Struct("<IQ")


@dataclass(frozen=True, slots=True)
class Value:
    """A metadata value, kept as its bytes in the file (after the type): vocabularies are large and rarely looked at."""

    type: ValueType
    raw: bytes

    @classmethod
    def integer(cls, number: int, kind: ValueType = ValueType.U32) -> Self:
        """One integer; u32 is what llama.cpp wants of counts."""
        return cls(kind, struct.pack("<" + FORMATS[kind], number))

    @classmethod
    def text(cls, text: str) -> Self:
        """One string."""
        return cls(ValueType.STRING, _string(text))

    @classmethod
    def array(cls, kind: ValueType, items: Iterable[int | float | bool]) -> Self:
        """An array of numbers or booleans."""
        values = list(items)
        head = ARRAY_HEAD.pack(kind, len(values))
        return cls(ValueType.ARRAY, head + struct.pack(f"<{len(values)}{FORMATS[kind]}", *values))

    @property
    def element(self) -> ValueType:
        """The type of an array's elements; of anything else, its own."""
        return ValueType(ARRAY_HEAD.unpack_from(self.raw)[0]) if self.type is ValueType.ARRAY else self.type

    @property
    def count(self) -> int:
        """How many elements an array has; 1 for anything else."""
        return int(ARRAY_HEAD.unpack_from(self.raw)[1]) if self.type is ValueType.ARRAY else 1

    @property
    def items(self) -> list[int | float | bool]:
        """The numbers or booleans of an array or a scalar; ContentError for strings."""
        if self.element is ValueType.STRING:
            raise ContentError("a string stands where a number is wanted")
        start = ARRAY_HEAD.size if self.type is ValueType.ARRAY else 0
        return list(struct.unpack_from(f"<{self.count}{FORMATS[self.element]}", self.raw, start))


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: `offset` counts from the start of the file, `shape[0]` is the length of a row."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    size: int

    @property
    def block(self) -> int | None:
        """The index in `blk.{index}.`, or None if the tensor belongs to no block."""
        head, _, rest = self.name.partition(".")
        index, dot, _ = rest.partition(".")
        number = int(index) if index.isascii() and index.isdecimal() else None
        # A block has one name only: `blk.07` is none.
        return number if head == "blk" and dot and index == str(number) else None


@dataclass(frozen=True, slots=True)
class Header:
    """Everything in front of the tensor data. `kv_start` and `kv_end` bound the key-value block in the file."""

    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    alignment: int
    kv_start: int
    kv_end: int

    def integer(self, key: str, default: int | None = None) -> int:
        """The non-negative integer under `key`; ContentError if it is missing or none."""
        value = self.metadata.get(key)
        if value is None and default is not None:
            return default
        if value is None or value.type not in INTEGERS or (number := int(value.items[0])) < 0:
            raise ContentError(f"metadata key {key!r} must hold a whole number, not below 0")
        return number

    def per_layer(self, key: str, layers: int) -> list[int]:
        """A whole number or boolean for each layer, from an array or from one number for all; else ContentError."""
        value = self.metadata.get(key)
        if value is None or value.type is not ValueType.ARRAY:
            return [self.integer(key)] * layers
        if value.count == layers and value.element in INTEGERS | {ValueType.BOOL}:
            numbers = [int(item) for item in value.items]
            if min(numbers) >= 0:
                return numbers
        raise ContentError(f"{key} must hold {layers} whole numbers, one for each layer and none below 0")

    def text(self, key: str, default: str | None = None) -> str:
        """The string under `key`; ContentError if it is missing or none."""
        value = self.metadata.get(key)
        if value is None and default is not None:
            return default
        if value is None or value.type is not ValueType.STRING:
            raise ContentError(f"metadata key {key!r} must hold a string")
        return value.raw[8:].decode(errors="replace")


def padded(size: int, alignment: int) -> int:
    """`size` rounded up to a multiple of `alignment`, a power of two."""
    return -(-size // alignment) * alignment


def encode_header(metadata: dict[str, Value], tensors: Iterable[Tensor], alignment: int) -> bytes:
    """A whole GGUF header, padded up to where the data starts; here a tensor's `offset` counts from that place."""
    infos = list(tensors)
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(infos), len(metadata))]
    parts += [encode_entry(key, value) for key, value in metadata.items()]
    for tensor in infos:
        parts += [
            _string(tensor.name),
            struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape),
            struct.pack("<IQ", tensor.type, tensor.offset),
        ]
    header = b"".join(parts)
    return header.ljust(padded(len(header), alignment), b"\0")


def encode_entry(key: str, value: Value) -> bytes:
    """One metadata entry."""
    return _string(key) + struct.pack("<I", value.type) + value.raw


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
