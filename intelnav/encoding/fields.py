"""How one field of a CBOR map is checked, and how it looks in CBOR.

A reader takes what CBOR gave and raises ValueError if that is not the field; a writer is its inverse.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from intelnav.domain.advert import Address
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange

MAX_ADDRESSES = 8
REQUIRED = object()

_MODEL_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Field:
    """A reader, a writer, and the value that stands for a field that is absent or null."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = _as_it_is
    default: Any = REQUIRED


def optional(field: Field, default: Any = None) -> Field:
    """The same field, which may be left out."""
    return Field(field.read, field.write, default)


def integer(highest: int, lowest: int = 0) -> Field:
    """A whole number in `lowest` to `highest`. True and false are none."""

    def read(value: Any) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return value

    return Field(read)


def number(highest: float, lowest: float = 0.0) -> Field:
    """A finite number in `lowest` to `highest`, as a float. True and false are none."""

    def read(value: Any) -> float:
        if type(value) not in (int, float) or not lowest <= value <= highest:
            raise ValueError(f"must be a number from {lowest:g} to {highest:g}")
        return float(value)

    return Field(read)


def text(longest: int) -> Field:
    """Printable text of at most `longest` characters."""

    def read(value: Any) -> str:
        if type(value) is not str or len(value) > longest or not value.isprintable():
            raise ValueError(f"must be printable text of at most {longest} characters")
        return value

    return Field(read)


def octets(size: int) -> Field:
    """A byte string of exactly `size` bytes."""

    def read(value: Any) -> bytes:
        if type(value) is not bytes or len(value) != size:
            raise ValueError(f"must be {size} bytes")
        return value

    return Field(read)


def sequence(item: Field, longest: int) -> Field:
    """An array of at most `longest` items, as a tuple."""

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > longest:
            raise ValueError(f"must be an array of at most {longest} items")
        return tuple(map(item.read, value))

    return Field(read, lambda values: [item.write(value) for value in values])


def read_all(fields: Mapping[str, Field], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `fields` in the map `given`, whose other entries are ignored."""
    values = {}
    for name, field in fields.items():
        value = given.get(name)
        if value is not None:
            values[name] = field.read(value)
        elif field.default is REQUIRED:
            raise ValueError(f"{name} is missing")
        else:
            values[name] = field.default
    return values


def mapping(value: Any) -> dict[str, Any]:
    """`value`, if it is a map."""
    if type(value) is not dict:
        raise ValueError("must be a map")
    return value


def pair(value: Any) -> list[int]:
    """`value`, if it is an array of two whole numbers."""
    if type(value) is not list or len(value) != 2:
        raise ValueError("must be an array of two whole numbers")
    return [U32.read(number) for number in value]


def _read_model(value: Any) -> str:
    if type(value) is not str or not 1 <= len(value) <= 64 or not _MODEL_LETTERS.issuperset(value):
        raise ValueError("must be 1 to 64 characters of a-z, 0-9 and -")
    return value


def _read_address(value: Any) -> Address:
    if type(value) is not str or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be HOST:PORT in printable ASCII")
    address = Address.parse(value)
    if address.port == 0:
        raise ValueError("port 0 cannot be dialled")
    return address


U32 = integer(2**32 - 1)
U63 = integer(2**63 - 1)
POSITIVE = integer(2**32 - 1, lowest=1)
SIGNATURE = octets(64)
NAME = text(64)
ENGINE_CLASS = text(128)
MODEL = Field(_read_model)
LAYERS = Field(lambda value: LayerRange(*pair(value)), lambda layers: [layers.start, layers.end])
PEER = Field(lambda value: PeerId(octets(32).read(value)), lambda peer: peer.key)
ADDRESS = Field(_read_address, str)
ADDRESSES = sequence(ADDRESS, MAX_ADDRESSES)
