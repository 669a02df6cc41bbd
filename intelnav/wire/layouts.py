"""The messages that every token takes, as CBOR of a few fixed layouts: one `struct` writes or reads such a message.

It is ordinary CBOR, whose numbers all have four bytes, so that each stands where the layout says. A node meets these
messages with cold caches, where the way through a CBOR library and a table of fields takes ten times as long as when
it is warm. Whatever has no layout, or does not match one to the byte, is for `codec`.
"""

import struct
from itertools import chain
from typing import Any

from cbor2 import dumps

from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.wire.messages import ForwardHidden, Hidden, Message, Token

# A message that has passed more hops has no layout.
MAX_SPENT = 8

_MAP, _ARRAY, _U32, _SESSION, _BYTES = 0xA0, 0x80, b"\x1a", b"\x50", b"\x5a"

# So many bytes tell the kind and the number of entries.
_KIND_END = 17
_SPENT_KEY = dumps("spent")
_DTYPE_KEY = dumps("dtype")
# The longest dtype, as CBOR.
_DTYPE_SIZE = 5

_Key = tuple[bytes, int, bytes]
_State = tuple[type[ForwardHidden | Hidden], Dtype, int, bool]


class _Layout:
    """Literal bytes, and formats (of `struct`) for the values between them."""

    def __init__(self, *parts: bytes | str) -> None:
        literals, formats = [b""], []
        for part in parts:
            if isinstance(part, bytes):
                literals[-1] += part
            else:
                formats.append(part)
                literals.append(b"")
        sizes = [f"{len(literal)}s" for literal in literals]
        self._struct = struct.Struct(">" + "".join(chain(*zip(sizes, [*formats, ""], strict=True))))
        self._literals = tuple(literals)
        self.count = len(formats)
        self.size = self._struct.size

    def write(self, *values: Any) -> bytes:
        """The bytes with these values in them; struct.error for a number that is no u32."""
        parts: list[Any] = [b""] * (2 * len(values) + 1)
        parts[::2] = self._literals
        parts[1::2] = values
        return self._struct.pack(*parts)

    def read(self, data: bytes) -> tuple[Any, ...] | None:
        """The values at the start of `data`, or None if a literal is another."""
        if len(data) < self.size:
            return None
        parts = self._struct.unpack_from(data)
        return parts[1::2] if parts[::2] == self._literals else None


def _begin(kind: str, entries: int) -> tuple[bytes | str, ...]:
    """The map's head, and the fields that all begin with."""
    return (
        bytes([_MAP + entries]) + dumps("kind") + dumps(kind),
        *(dumps("session") + _SESSION, "16s"),
        *(dumps("seq") + _U32, "I"),
        *(dumps("position") + _U32, "I"),
    )


def _spent(count: int) -> tuple[bytes | str, ...]:
    return _SPENT_KEY + bytes([_ARRAY + count]), *((_U32, "I") * count)


def _state_layout(kind: type[ForwardHidden | Hidden], dtype: Dtype, spent: int, samples: bool) -> _Layout:
    """All before the payload."""
    return _Layout(
        *_begin("hidden" if kind is Hidden else "forward_hidden", 9 if samples else 8),
        *(dumps("shape") + bytes([_ARRAY + 2]) + _U32, "I", _U32, "I"),
        *_spent(spent),
        _DTYPE_KEY + dumps(str(dtype)),
        *((dumps("sample_from") + _U32, "I") if samples else ()),
        *(dumps("payload") + _BYTES, "I"),
    )


def _token_layout(spent: int) -> _Layout:
    """A message with one token."""
    return _Layout(*_begin("token", 6), dumps("tokens") + bytes([_ARRAY + 1]) + _U32, "I", *_spent(spent))


def _key(data: bytes, spent: int) -> _Key:
    """What tells layouts apart, in a message whose array `spent` begins at that byte."""
    dtype = spent + 1 + 5 * (data[spent] - _ARRAY) + len(_DTYPE_KEY)
    return data[:_KIND_END], data[spent], data[dtype : dtype + _DTYPE_SIZE]


_STATES: dict[_State, _Layout] = {
    (kind, dtype, spent, samples): _state_layout(kind, dtype, spent, samples)
    for kind, samples in ((ForwardHidden, False), (ForwardHidden, True), (Hidden, False))
    for dtype in Dtype
    for spent in range(MAX_SPENT + 1)
}
_TOKENS = [_token_layout(spent) for spent in range(MAX_SPENT + 1)]

_SPENT_AT: dict[bytes, int] = {}
_BY_KEY: dict[_Key, tuple[_Layout, _State | None]] = {}
for _layout, _state in [
    *((layout, state) for state, layout in _STATES.items()),
    *((each, None) for each in _TOKENS),
]:
    _written = _layout.write(*(bytes(16) if index == 0 else 0 for index in range(_layout.count)))
    _at = _SPENT_AT[_written[:_KIND_END]] = _written.index(_SPENT_KEY) + len(_SPENT_KEY)
    _BY_KEY[_key(_written, _at)] = _layout, _state


def write(message: Message) -> bytes | None:
    """The message without its payload, or None if it has no layout."""
    if not isinstance(message, ForwardHidden | Hidden | Token) or len(message.spent) > MAX_SPENT:
        return None
    begin, spent = (message.session, message.seq, message.position), message.spent
    try:
        if isinstance(message, Token):
            return (
                _TOKENS[len(spent)].write(*begin, *message.tokens, *spent)
                if len(message.tokens) == 1
                else None
            )
        state = message.state
        end: tuple[int, ...] = ()
        if isinstance(message, ForwardHidden):
            if message.kv_truncate_to is not None:
                return None
            end = () if message.sample_from is None else (message.sample_from,)
        layout = _STATES[type(message), state.dtype, len(spent), end != ()]
        return layout.write(*begin, state.rows, state.width, *spent, *end, len(state.payload))
    except struct.error:
        # A number that is no u32: whoever reads the message refuses it.
        return None


def read(data: bytes) -> ForwardHidden | Hidden | Token | None:
    """The message in `data`, or None if that is in no layout; a payload is a view of `data`.

    Raises PeerError for a payload that does not fit its shape.
    """
    at = _SPENT_AT.get(data[:_KIND_END], len(data))
    if at >= len(data) or (known := _BY_KEY.get(_key(data, at))) is None:
        return None
    layout, described = known
    if (values := layout.read(data)) is None:
        return None
    session, seq, position = values[:3]
    if described is None:
        return Token(session, seq, position, values[3:4], values[4:]) if len(data) == layout.size else None
    kind, dtype, spent, samples = described
    if layout.size + values[-1] != len(data):
        return None
    state = HiddenState(dtype, values[3], values[4], memoryview(data)[layout.size :])
    passed = values[5 : 5 + spent]
    if kind is Hidden:
        return Hidden(session, seq, position, state, passed)
    return ForwardHidden(session, seq, position, state, None, values[-2] if samples else None, passed)
