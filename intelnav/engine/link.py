"""The frames between a node and its worker: lengths and a number, the fields, and raw tensor bytes behind them.

The fields are a CBOR map, but for forwards and their outputs, which are packed: a worker meets every token with cold
caches, where each line of Python counts. The link is a private socket pair between parent and child, so what arrives
is trusted; no peer ever writes to it.
"""

import struct
from array import array
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cbor2

from intelnav.domain.errors import Code, ConfigError, EngineError, IntelNavError, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import Footprint
from intelnav.engine.interface import Forward, Output, SliceInfo, SliceSpec

Fields = dict[str, Any]
Payload = bytes | bytearray | memoryview

# Bytes of the fields and of the payload, the number of the call, and whether the fields are packed. These three are as
# C lays them out, for `llama/native/loop.cpp`.
_HEAD = struct.Struct("@IIQ?7x")
_FORWARD = struct.Struct("@qqqqqIIBB6x")
_OUTPUT = struct.Struct("@qIIB7x")
OUTPUT_HEAD = _HEAD.size + _OUTPUT.size
"""Bytes of an output's frame before its payload."""
READ_BYTES = 1 << 16
"""How much a worker receives at once: little enough that a buffer for it is no mapping of its own each time."""
_NONE = -1
_DTYPES = (None, *Dtype)


Frame = tuple[int, Fields | bytes, Payload]
"""A request or an answer: the number of the call, the fields, and the payload."""


def write_frame(number: int, fields: Fields | bytes, payload: Payload = b"") -> bytes:
    """The bytes of a frame. Raises UnicodeEncodeError for text that UTF-8 cannot express."""
    packed = isinstance(fields, bytes)
    body = fields if isinstance(fields, bytes) else cbor2.dumps(fields)
    return b"".join((_HEAD.pack(len(body), len(payload), number, packed), body, payload))


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._wanted = _HEAD.size

    @property
    def is_between(self) -> bool:
        """Whether no part of a frame is held."""
        return not self._pending

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame that is complete with `data`."""
        if self._pending:
            self._pending += data
            if len(self._pending) < self._wanted:
                return []
            data = bytes(self._pending)
            self._pending.clear()
        frames: list[Frame] = []
        start, self._wanted = 0, _HEAD.size
        while len(data) - start >= _HEAD.size:
            length, payload_length, number, packed = _HEAD.unpack_from(data, start)
            middle = start + _HEAD.size + length
            end = middle + payload_length
            if end > len(data):
                self._wanted = end - start
                break
            body = data[start + _HEAD.size : middle]
            frames.append((number, body if packed else cbor2.loads(body), data[middle:end]))
            start = end
        if start < len(data):
            self._pending += data[start:]
        return frames


def pack_load(spec: SliceSpec, need: Footprint, layers: int) -> Fields:
    """The fields of the first request: what to load, what it will take, and how many layers it has."""
    return {"spec": asdict(spec) | {"path": str(spec.path)}, "need": asdict(need), "layers": layers}


def unpack_load(fields: Fields) -> tuple[SliceSpec, Footprint, int]:
    """The arguments of that request."""
    spec = SliceSpec(**fields["spec"] | {"path": Path(fields["spec"]["path"])})
    return spec, Footprint(**fields["need"]), fields["layers"]


def pack_info(info: SliceInfo) -> Fields:
    """The fields of its answer."""
    return {"info": asdict(info) | {"end_tokens": sorted(info.end_tokens)}}


def unpack_info(fields: Fields) -> SliceInfo:
    """What that answer says was loaded."""
    info = fields["info"]
    return SliceInfo(
        **info | {"layers": LayerRange(**info["layers"]), "end_tokens": frozenset(info["end_tokens"])}
    )


def pack_forward(forward: Forward) -> tuple[bytes, Payload]:
    """The packed fields and the payload of a request to run `forward`."""
    hidden = forward.hidden
    packed = _FORWARD.pack(
        forward.sequence,
        forward.position,
        forward.stop,
        _NONE if forward.truncate_to is None else forward.truncate_to,
        _NONE if forward.sample_from is None else forward.sample_from,
        *((0, 0, 0) if hidden is None else (hidden.rows, hidden.width, _DTYPES.index(hidden.dtype))),
        _DTYPES.index(forward.reply),
    )
    return packed, array("q", forward.tokens).tobytes() if hidden is None else hidden.payload


def unpack_forward(packed: bytes, payload: Payload) -> Forward:
    """The forward in a request."""
    sequence, position, stop, truncate_to, sample_from, rows, width, dtype, reply = _FORWARD.unpack(packed)
    hidden = _hidden(dtype, rows, width, payload)
    return Forward(
        sequence,
        position,
        stop,
        () if hidden is not None else _tokens(payload),
        hidden,
        None if truncate_to == _NONE else truncate_to,
        None if sample_from == _NONE else sample_from,
        _DTYPES[reply],
    )


def pack_output(output: Output) -> tuple[bytes, Payload]:
    """The packed fields and the payload of the answer to a forward."""
    hidden = output.hidden
    if hidden is None:
        return _OUTPUT.pack(output.micros, 0, 0, 0), array("q", output.tokens).tobytes()
    packed = _OUTPUT.pack(output.micros, hidden.rows, hidden.width, _DTYPES.index(hidden.dtype))
    return packed, hidden.payload


def unpack_output(packed: bytes, payload: Payload) -> Output:
    """The output in the answer to a forward."""
    micros, rows, width, dtype = _OUTPUT.unpack(packed)
    hidden = _hidden(dtype, rows, width, payload)
    return Output(hidden, () if hidden is not None else _tokens(payload), micros)


def pack_error(error: IntelNavError) -> Fields:
    """The fields of an answer that says why there is none."""
    return {"error": type(error).__name__, "code": error.code, "reason": str(error)}


def unpack_error(fields: Fields) -> IntelNavError:
    """The error in such an answer."""
    match fields["error"]:
        case "PeerError":
            return PeerError(Code(fields["code"]), fields["reason"])
        case "ConfigError":
            return ConfigError(fields["reason"])
        case _:
            return EngineError(fields["reason"])


def _hidden(dtype: int, rows: int, width: int, payload: Payload) -> HiddenState | None:
    known = _DTYPES[dtype]
    return None if known is None else HiddenState(known, rows, width, payload)


def _tokens(payload: Payload) -> tuple[int, ...]:
    return tuple(memoryview(payload).cast("q"))
