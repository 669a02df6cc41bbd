"""Messages to bytes and back: one table says which fields a kind has and what each may hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.hidden import HiddenState
from intelnav.encoding import cbor
from intelnav.encoding import fields as shared
from intelnav.encoding.fields import REQUIRED, Field, optional
from intelnav.wire import fields as f
from intelnav.wire import layouts
from intelnav.wire.messages import (
    AbortSession,
    ForwardHidden,
    Hello,
    Hidden,
    Message,
    Ping,
    Pong,
    SessionAck,
    SessionClose,
    SessionInit,
    Token,
    Unknown,
)

MAX_MESSAGE = 16 * 2**20

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class _Kind:
    """A message class, the name of its kind, its plain fields, and whether it carries a hidden state.

    A hidden state is not one entry of the map but three: `dtype`, `shape` and, last of all, `payload`.
    """

    type: Any
    name: str
    fields: Mapping[str, Field]
    tensor: bool = False


_ANSWERED = {"session": f.SESSION, "seq": shared.U32, "position": shared.U32, "spent": f.SPENT}

_KINDS = (
    _Kind(Hello, "hello", {"protocol": shared.U32, "agent": f.AGENT, "features": optional(f.FEATURES, ())}),
    _Kind(
        SessionInit,
        "session_init",
        {
            "session": f.SESSION,
            "model": shared.MODEL,
            "layers": shared.LAYERS,
            "dtype": f.DTYPE,
            "context": shared.POSITIVE,
            "prev": shared.PEER,
            "next": optional(f.NEXT_HOP),
            "sampling": optional(f.SAMPLING),
            "engine_class": optional(shared.ENGINE_CLASS),
        },
    ),
    _Kind(
        SessionAck,
        "session_ack",
        {
            "session": f.SESSION,
            "engine_class": shared.ENGINE_CLASS,
            "max_rows": shared.POSITIVE,
            "window": shared.POSITIVE,
            "context": shared.POSITIVE,
        },
    ),
    _Kind(
        ForwardHidden,
        "forward_hidden",
        _ANSWERED | {"kv_truncate_to": optional(shared.U32), "sample_from": optional(shared.U32)},
        tensor=True,
    ),
    _Kind(Token, "token", _ANSWERED | {"tokens": f.TOKENS}),
    _Kind(Hidden, "hidden", _ANSWERED, tensor=True),
    _Kind(SessionClose, "session_close", {"session": f.SESSION}),
    _Kind(AbortSession, "abort_session", {"session": f.SESSION, "code": f.CODE, "reason": f.REASON}),
    _Kind(Ping, "ping", {"nonce": shared.U63, "at": shared.U63}),
    _Kind(Pong, "pong", {"nonce": shared.U63, "at": shared.U63}),
)
_KIND = {"kind": f.KIND}
_STATE = {"dtype": f.DTYPE, "shape": f.SHAPE}
_BY_NAME = {kind.name: kind for kind in _KINDS}
_BY_TYPE = {kind.type: kind for kind in _KINDS}


def encode(message: Message) -> list[Buffer]:
    """The message's CBOR in one or two buffers; the second is the payload of its hidden state, not copied.

    Raises PeerError `bad_request` for a message over 16 MiB, or over 32 KiB before its payload, and KeyError
    for `Unknown`, which is never sent.
    """
    head = layouts.write(message)
    if head is None:
        head = _head(message)
    buffers: list[Buffer] = (
        [head, message.state.payload] if isinstance(message, ForwardHidden | Hidden) else [head]
    )
    if (size := sum(map(len, buffers))) > MAX_MESSAGE or len(head) > cbor.MAX_HEAD:
        kind = _BY_TYPE[type(message)]
        raise PeerError(Code.BAD_REQUEST, f"a {kind.name} of {size} bytes is over the limit")
    return buffers


def decode(data: Buffer) -> Message:
    """The message in `data`; a hidden state's payload is a view of `data` (of a copy if it can change).

    Raises PeerError, and nothing else, for whatever is no message of this version.
    """
    if len(data) > MAX_MESSAGE:
        raise PeerError(
            Code.BAD_REQUEST, f"a message of {len(data)} bytes is over the limit of {MAX_MESSAGE}"
        )
    data = bytes(data)
    if (message := layouts.read(data)) is not None:
        return message
    entries, payload = cbor.load(data)
    name = _values("message", _KIND, entries)["kind"]
    kind = _BY_NAME.get(name)
    if kind is None:
        return Unknown(name, _session_of(entries))
    values = _values(name, kind.fields, entries)
    if kind.tensor:
        if payload is None:
            raise PeerError(Code.BAD_REQUEST, f"{name} without payload")
        described = _values(name, _STATE, entries)
        rows, width = described["shape"]
        values["state"] = HiddenState(described["dtype"], rows, width, payload)
    read: Message = kind.type(**values)
    return read


def _head(message: Message) -> bytes:
    """The message without the payload of a hidden state."""
    kind = _BY_TYPE[type(message)]
    entries: dict[str, Any] = {"kind": kind.name}
    for name, field in kind.fields.items():
        value = getattr(message, name)
        if value != field.default:
            entries[name] = field.write(value)
    if not isinstance(message, ForwardHidden | Hidden):
        return cbor.dump(entries)
    state = message.state
    entries |= {"dtype": str(state.dtype), "shape": (state.rows, state.width)}
    return cbor.dump_before_payload(entries, len(state.payload))


def _values(kind: str, fields: Mapping[str, Field], entries: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `fields` in a message of this kind; PeerError that names the field that is not as it must be."""
    values = {}
    name, field = "", f.KIND
    try:
        for name, field in fields.items():
            given = entries.get(name)
            if given is not None:
                values[name] = field.read(given)
            elif field.default is REQUIRED:
                raise PeerError(Code.BAD_REQUEST, f"{kind} without {name}")
            else:
                values[name] = field.default
    except ValueError as error:
        code = Code.UNSUPPORTED if field is f.DTYPE else Code.BAD_REQUEST
        raise PeerError(code, f"{kind}: {name}: {error}") from None
    return values


def _session_of(entries: Mapping[str, Any]) -> bytes | None:
    """The session that a message of an unknown kind names, so that it can be refused there."""
    try:
        session: bytes = f.SESSION.read(entries.get("session"))
    except ValueError:
        return None
    return session
