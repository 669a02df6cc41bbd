"""How one field of a message is checked, and how it looks in CBOR.

A reader takes what CBOR gave and raises ValueError if that is not the field; a writer is its inverse.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from intelnav.domain.advert import Address
from intelnav.domain.errors import Code
from intelnav.domain.hidden import Dtype
from intelnav.domain.identity import PeerId
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.wire.messages import NextHop

MAX_ADDRESSES = 8
MAX_REASON = 200
MAX_HOPS = 64
REQUIRED = object()

_DTYPES = {str(dtype): dtype for dtype in Dtype}
_MODEL_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_SAMPLING_INTEGERS = ("seed", "top_k")
_SAMPLING_NUMBERS = ("temperature", "top_p", "min_p", "repeat_penalty")


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


def _entries(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError("must be a map")
    return value


def _pair(value: Any) -> list[int]:
    if type(value) is not list or len(value) != 2:
        raise ValueError("must be an array of two whole numbers")
    return [U32.read(number) for number in value]


def _read_model(value: Any) -> str:
    if type(value) is not str or not 1 <= len(value) <= 64 or not _MODEL_LETTERS.issuperset(value):
        raise ValueError("must be 1 to 64 characters of a-z, 0-9 and -")
    return value


def _read_dtype(value: Any) -> Dtype:
    dtype = _DTYPES.get(value) if type(value) is str else None
    if dtype is None:
        raise ValueError(f"must be one of {', '.join(_DTYPES)}")
    return dtype


def _read_code(value: Any) -> Code:
    try:
        return Code(NAME.read(value))
    except ValueError:
        # A later version may have more reasons to end a session; ended it is.
        return Code.CLOSED


def _write_reason(reason: Any) -> str:
    return "".join(filter(str.isprintable, reason[:MAX_REASON]))


def _read_reason(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("must be text")
    return _write_reason(value)


def _read_address(value: Any) -> Address:
    if type(value) is not str or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be HOST:PORT in printable ASCII")
    address = Address.parse(value)
    if address.port == 0:
        raise ValueError("port 0 cannot be dialled")
    return address


def _read_next(value: Any) -> NextHop:
    entries = _entries(value)
    return NextHop(PEER.read(entries.get("peer")), ADDRESSES.read(entries.get("addresses")))


def _write_next(hop: NextHop) -> dict[str, Any]:
    return {"peer": hop.peer.key, "addresses": ADDRESSES.write(hop.addresses)}


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError("sampling settings must be numbers")
    return float(value)


def _read_sampling(value: Any) -> Sampling:
    given = {name: setting for name, setting in _entries(value).items() if setting is not None}
    settings: dict[str, Any] = {name: U32.read(given[name]) for name in _SAMPLING_INTEGERS if name in given}
    settings |= {name: _number(given[name]) for name in _SAMPLING_NUMBERS if name in given}
    return Sampling(**settings)


def _write_sampling(sampling: Sampling) -> dict[str, float]:
    return {name: getattr(sampling, name) for name in _SAMPLING_INTEGERS + _SAMPLING_NUMBERS}


U32 = integer(2**32 - 1)
U63 = integer(2**63 - 1)
POSITIVE = integer(2**32 - 1, lowest=1)
SESSION = octets(16)
SIGNATURE = octets(64)
NAME = text(64)
KIND = NAME
AGENT = text(100)
ENGINE_CLASS = text(128)
MODEL = Field(_read_model)
DTYPE = Field(_read_dtype, str)
SHAPE = Field(_pair)
LAYERS = Field(lambda value: LayerRange(*_pair(value)), lambda layers: [layers.start, layers.end])
PEER = Field(lambda value: PeerId(octets(32).read(value)), lambda peer: peer.key)
CODE = Field(_read_code, str)
REASON = Field(_read_reason, _write_reason)
ADDRESS = Field(_read_address, str)
ADDRESSES = sequence(ADDRESS, MAX_ADDRESSES)
NEXT_HOP = Field(_read_next, _write_next)
SAMPLING = Field(_read_sampling, _write_sampling)
FEATURES = sequence(NAME, 32)
TOKENS = sequence(U32, 4096)
SPENT = optional(sequence(U32, MAX_HOPS), default=())
