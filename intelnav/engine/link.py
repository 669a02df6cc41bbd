"""The frames between a node and its worker: two lengths, one CBOR map, and raw tensor bytes behind it.

The link is a private socket pair between parent and child, so what arrives is trusted; no peer ever writes to it.
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
from intelnav.engine.interface import Forward, Output, SliceInfo, SliceSpec
from intelnav.engine.probe import Footprint

Message = dict[str, Any]
Payload = bytes | bytearray | memoryview

_LENGTHS = struct.Struct(">II")
# What every token takes is packed, not encoded: a worker meets each forward with cold caches, where every line counts.
_FORWARD = struct.Struct(">qqqqqBBII")
_OUTPUT = struct.Struct(">qBII")
_NONE = -1
_DTYPES = (None, *Dtype)


def frame(message: Message, payload: Payload = b"") -> tuple[bytes, Payload]:
    """The two parts of a frame, to be written with one call."""
    body = cbor2.dumps(message)
    return _LENGTHS.pack(len(body), len(payload)) + body, payload


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[tuple[Message, memoryview]]:
        """Every frame that is complete with `data`, with its payload."""
        if self._pending:
            self._pending += data
            if _frame_length(self._pending, 0) > len(self._pending):
                return []
            data = bytes(self._pending)
        frames, start, view = [], 0, memoryview(data)
        while (end := start + _frame_length(data, start)) <= len(data):
            middle = start + _LENGTHS.size
            body = _LENGTHS.unpack_from(data, start)[0]
            frames.append((cbor2.loads(view[middle : middle + body]), view[middle + body : end]))
            start = end
        self._pending = bytearray(view[start:])
        return frames


def _frame_length(data: bytes | bytearray, start: int) -> int:
    """Bytes of the frame at `start`; while its head is incomplete, those of the head."""
    if len(data) - start < _LENGTHS.size:
        return _LENGTHS.size
    body, payload = _LENGTHS.unpack_from(data, start)
    return _LENGTHS.size + int(body) + int(payload)


def pack_load(spec: SliceSpec, need: Footprint, layers: int) -> Message:
    """The fields of the first request: what to load, what it will take, and how many layers it has."""
    return {"spec": asdict(spec) | {"path": str(spec.path)}, "need": asdict(need), "layers": layers}


def unpack_load(fields: Message) -> tuple[SliceSpec, Footprint, int]:
    """The arguments of that request."""
    spec = SliceSpec(**fields["spec"] | {"path": Path(fields["spec"]["path"])})
    return spec, Footprint(**fields["need"]), fields["layers"]


def pack_info(info: SliceInfo) -> Message:
    """The fields of its answer."""
    return {"info": asdict(info) | {"end_tokens": sorted(info.end_tokens)}}


def unpack_info(fields: Message) -> SliceInfo:
    """What that answer says was loaded."""
    info = fields["info"]
    return SliceInfo(
        **info | {"layers": LayerRange(**info["layers"]), "end_tokens": frozenset(info["end_tokens"])}
    )


def pack_forward(forward: Forward) -> tuple[Message, Payload]:
    """The fields and the payload of a request to run `forward`."""
    dtype, rows, width, payload = _pack_input(forward)
    packed = _FORWARD.pack(
        forward.sequence,
        forward.position,
        forward.stop,
        _NONE if forward.truncate_to is None else forward.truncate_to,
        _NONE if forward.sample_from is None else forward.sample_from,
        _DTYPES.index(forward.reply),
        dtype,
        rows,
        width,
    )
    return {"forward": packed}, payload


def unpack_forward(fields: Message, payload: Payload) -> Forward:
    """The forward in a request."""
    sequence, position, stop, truncate_to, sample_from, reply, dtype, rows, width = _FORWARD.unpack(
        fields["forward"]
    )
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


def pack_output(output: Output) -> tuple[Message, Payload]:
    """The fields and the payload of the answer to a forward."""
    hidden = output.hidden
    if hidden is None:
        return {"output": _OUTPUT.pack(output.micros, 0, 0, 0)}, array("q", output.tokens).tobytes()
    packed = _OUTPUT.pack(output.micros, _DTYPES.index(hidden.dtype), hidden.rows, hidden.width)
    return {"output": packed}, hidden.payload


def unpack_output(fields: Message, payload: Payload) -> Output:
    """The output in the answer to a forward."""
    micros, dtype, rows, width = _OUTPUT.unpack(fields["output"])
    hidden = _hidden(dtype, rows, width, payload)
    return Output(hidden, () if hidden is not None else _tokens(payload), micros)


def pack_error(error: IntelNavError) -> Message:
    """The fields of an answer that says why there is none."""
    return {"error": type(error).__name__, "code": error.code, "reason": str(error)}


def unpack_error(fields: Message) -> IntelNavError:
    """The error in such an answer."""
    match fields["error"]:
        case "PeerError":
            return PeerError(Code(fields["code"]), fields["reason"])
        case "ConfigError":
            return ConfigError(fields["reason"])
        case _:
            return EngineError(fields["reason"])


def _pack_input(forward: Forward) -> tuple[int, int, int, Payload]:
    hidden = forward.hidden
    if hidden is None:
        return 0, 0, 0, array("q", forward.tokens).tobytes()
    return _DTYPES.index(hidden.dtype), hidden.rows, hidden.width, hidden.payload


def _hidden(dtype: int, rows: int, width: int, payload: Payload) -> HiddenState | None:
    known = _DTYPES[dtype]
    return None if known is None else HiddenState(known, rows, width, payload)


def _tokens(payload: Payload) -> tuple[int, ...]:
    return tuple(memoryview(payload).cast("q"))
