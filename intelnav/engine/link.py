"""The frames between a node and its worker: two lengths, one CBOR map, and raw tensor bytes behind it.

The link is a private socket pair between parent and child, so what arrives is trusted; no peer ever writes to it.
"""

import struct
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
    fields = {
        "sequence": forward.sequence,
        "position": forward.position,
        "stop": forward.stop,
        "tokens": forward.tokens,
        "truncate_to": forward.truncate_to,
        "sample_from": forward.sample_from,
        "reply": forward.reply,
    }
    return _with_hidden(fields, forward.hidden)


def unpack_forward(fields: Message, payload: Payload) -> Forward:
    """The forward in a request."""
    return Forward(
        fields["sequence"],
        fields["position"],
        fields["stop"],
        tuple(fields["tokens"]),
        _hidden(fields, payload),
        fields["truncate_to"],
        fields["sample_from"],
        fields["reply"] and Dtype(fields["reply"]),
    )


def pack_output(output: Output) -> tuple[Message, Payload]:
    """The fields and the payload of the answer to a forward."""
    return _with_hidden({"tokens": output.tokens, "micros": output.micros}, output.hidden)


def unpack_output(fields: Message, payload: Payload) -> Output:
    """The output in the answer to a forward."""
    return Output(_hidden(fields, payload), tuple(fields["tokens"]), fields["micros"])


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


def _with_hidden(fields: Message, hidden: HiddenState | None) -> tuple[Message, Payload]:
    if hidden is None:
        return fields, b""
    fields |= {"dtype": hidden.dtype, "rows": hidden.rows, "width": hidden.width}
    return fields, hidden.payload


def _hidden(fields: Message, payload: Payload) -> HiddenState | None:
    if "dtype" not in fields:
        return None
    return HiddenState(Dtype(fields["dtype"]), fields["rows"], fields["width"], payload)
