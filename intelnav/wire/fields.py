"""The fields that only messages have; see `encoding.fields`."""

from typing import Any

from intelnav.domain.errors import Code
from intelnav.domain.hidden import Dtype
from intelnav.domain.sampling import Sampling
from intelnav.encoding.fields import (
    ADDRESSES,
    NAME,
    PEER,
    U32,
    Field,
    mapping,
    octets,
    optional,
    pair,
    sequence,
    text,
)
from intelnav.wire.messages import NextHop

MAX_REASON = 200
MAX_HOPS = 64

_DTYPES = {str(dtype): dtype for dtype in Dtype}
_SAMPLING_INTEGERS = ("seed", "top_k")
_SAMPLING_NUMBERS = ("temperature", "top_p", "min_p", "repeat_penalty")


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


def _read_next(value: Any) -> NextHop:
    entries = mapping(value)
    return NextHop(PEER.read(entries.get("peer")), ADDRESSES.read(entries.get("addresses")))


def _write_next(hop: NextHop) -> dict[str, Any]:
    return {"peer": hop.peer.key, "addresses": ADDRESSES.write(hop.addresses)}


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError("sampling settings must be numbers")
    return float(value)


def _read_sampling(value: Any) -> Sampling:
    given = {name: setting for name, setting in mapping(value).items() if setting is not None}
    settings: dict[str, Any] = {name: U32.read(given[name]) for name in _SAMPLING_INTEGERS if name in given}
    settings |= {name: _number(given[name]) for name in _SAMPLING_NUMBERS if name in given}
    return Sampling(**settings)


def _write_sampling(sampling: Sampling) -> dict[str, float]:
    return {name: getattr(sampling, name) for name in _SAMPLING_INTEGERS + _SAMPLING_NUMBERS}


SESSION = octets(16)
KIND = NAME
AGENT = text(100)
DTYPE = Field(_read_dtype, str)
SHAPE = Field(pair)
CODE = Field(_read_code, str)
REASON = Field(_read_reason, _write_reason)
NEXT_HOP = Field(_read_next, _write_next)
SAMPLING = Field(_read_sampling, _write_sampling)
FEATURES = sequence(NAME, 32)
TOKENS = sequence(U32, 4096)
SPENT = optional(sequence(U32, MAX_HOPS), default=())
