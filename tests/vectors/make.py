"""Writes the vector files of this folder anew: `python -m tests.vectors.make` from the repository's root.

Good messages, the handshake and slices come out of this implementation; bad messages and all manifests are put
together by hand here. A change of an existing file is a change of the protocol, but for `written`, where the protocol
leaves a choice.
"""

import base64
import json
import math
from pathlib import Path
from typing import Any

import cbor2

from intelnav.dht.keys import MODELS_KEY, RELAY_KEY, model_key
from intelnav.domain.advert import Address
from intelnav.domain.hidden import Dtype
from intelnav.domain.identity import Identity
from intelnav.domain.slice import LayerRange
from intelnav.store.gguf import Value, ValueType, encode_entry
from intelnav.store.layout import model_of, plan_slice
from intelnav.store.manifest import Manifest
from intelnav.store.pieces import Blob, BlobHasher
from intelnav.wire.channel import Channel
from intelnav.wire.codec import decode, encode
from intelnav.wire.messages import Hello, Unknown
from intelnav.wire.noise import Handshake
from intelnav.wire.seeds import sign_seeds

FOLDER = Path(__file__).parent
SESSION = bytes(range(16))
PEER_A, PEER_B = (Identity(bytes([n]) * 32).peer.key for n in (1, 2))
TENSOR = {"dtype": "f16", "shape": [2, 3], "payload": bytes(range(12))}

INIT = {
    "kind": "session_init",
    "session": SESSION,
    "model": "b3-abc234",
    "layers": [8, 15],
    "dtype": "f16",
    "context": 4096,
    "prev": PEER_A,
    "next": {"peer": PEER_B, "addresses": ["192.0.2.7:7717", "[2001:db8::7]:7717", "node.example:1"]},
}
FORWARD = {"kind": "forward_hidden", "session": SESSION, "seq": 7, "position": 100}
TOKEN = {"kind": "token", "session": SESSION, "seq": 7, "position": 100, "tokens": [17]}
ABORT = {"kind": "abort_session", "session": SESSION, "code": "busy", "reason": "all 8 sequences are taken"}
PING = {"kind": "ping", "nonce": 1, "at": 2}

GOOD: dict[str, dict[str, Any]] = {
    "hello": {"kind": "hello", "protocol": 1, "agent": "intelnav/0.1.0"},
    "hello with features": {"kind": "hello", "protocol": 1, "agent": "other", "features": ["a", "b"]},
    "hello of a later version": {"kind": "hello", "protocol": 2, "agent": "other", "colour": "blue"},
    "session_init in the middle": INIT,
    "session_init at a sampling tail": {
        **INIT,
        "layers": [22, 30],
        "next": None,
        "sampling": {
            "seed": 42,
            "top_k": 40,
            "temperature": 0.8,
            "top_p": 0.95,
            "min_p": 0.05,
            "repeat_penalty": 1.1,
        },
    },
    "session_init with defaults for sampling": {**INIT, "layers": [22, 30], "next": None, "sampling": {}},
    "session_init with a setting of sampling that is null": {
        **INIT,
        "layers": [22, 30],
        "next": None,
        "sampling": {"seed": 42, "top_p": None},
    },
    "session_init with an engine class": {**INIT, "engine_class": "llama.cpp-cpu"},
    "session_init without addresses": {**INIT, "next": {"peer": PEER_B, "addresses": []}},
    "session_ack": {
        "kind": "session_ack",
        "session": SESSION,
        "engine_class": "llama.cpp-cpu",
        "max_rows": 128,
        "window": 8,
        "context": 4096,
    },
    "forward_hidden": {**FORWARD, **TENSOR},
    "forward_hidden with all fields": {
        **FORWARD,
        "spent": [850, 1200],
        "kv_truncate_to": 100,
        "sample_from": 1,
        **TENSOR,
    },
    "forward_hidden, f32": {**FORWARD, "dtype": "f32", "shape": [1, 2], "payload": bytes(8)},
    "forward_hidden, bf16": {**FORWARD, "dtype": "bf16", "shape": [1, 2], "payload": bytes(4)},
    "forward_hidden, i8": {**FORWARD, "dtype": "i8", "shape": [2, 3], "payload": bytes(14)},
    "forward_hidden, payload of 300 bytes": {
        **FORWARD,
        "dtype": "f16",
        "shape": [1, 150],
        "payload": bytes(300),
    },
    "forward_hidden with an unknown field": {**FORWARD, "later": {"a": [1, None, 1.5]}, **TENSOR},
    "token": {**TOKEN, "spent": [850, 1200, 700]},
    "token without a sample": {**TOKEN, "tokens": []},
    "hidden": {"kind": "hidden", "session": SESSION, "seq": 7, "position": 100, **TENSOR},
    "session_close": {"kind": "session_close", "session": SESSION},
    "abort_session": ABORT,
    "abort_session with a code of a later version": {**ABORT, "code": "tired"},
    "abort_session with a reason that is too long": {**ABORT, "reason": "x" * 1000},
    "abort_session with control characters": {**ABORT, "reason": "a\n\x1b[31mb"},
    "ping": PING,
    "pong": {**PING, "kind": "pong", "at": 2**63 - 1},
    "an unknown kind": {"kind": "dance", "tempo": 120},
    "an unknown kind in a session": {"kind": "dance", "session": SESSION},
    "an unknown kind with a session that is none": {"kind": "dance", "session": "mine"},
}

BAD: dict[str, tuple[str, bytes | dict[Any, Any]]] = {
    "nothing": ("bad_request", b""),
    "not a map": ("bad_request", b"\x80"),
    "a map with its length missing": ("bad_request", b"\xbf\xff"),
    "more than 23 entries": ("bad_request", {**PING, **{f"x{n}": n for n in range(21)}}),
    "cut off": ("bad_request", cbor2.dumps(PING)[:-1]),
    "a byte too many": ("bad_request", cbor2.dumps(PING) + b"\x00"),
    "a number as a key": ("bad_request", {**PING, 1: 2}),
    "a key given twice": ("bad_request", b"\xa2\x64kind\x64ping\x64kind\x64pong"),
    "a key given twice further in": ("bad_request", b"\xa2\x64kind\x64ping\x61x\xa2\x61a\x01\x61a\x02"),
    "an array of unknown length": ("bad_request", b"\xa2\x64kind\x64ping\x61x\x9f\xff"),
    "nested deeper than 8": ("bad_request", b"\xa2\x64kind\x64ping\x61x" + b"\x81" * 9 + b"\x00"),
    "a tag": ("bad_request", b"\xa2\x64kind\x64ping\x61x\xc0\x60"),
    "a tag that nobody knows": ("bad_request", b"\xa2\x64kind\x64ping\x61x\xda\x00\x01\x00\x00\x00"),
    "an array that claims 2^63 items": ("bad_request", b"\xa2\x64kind\x64ping\x61x\x9b\x80" + bytes(7)),
    "a text that is not UTF-8": ("bad_request", b"\xa1\x64kind\x62\xff\xff"),
    "no kind": ("bad_request", {"nonce": 1, "at": 2}),
    "a kind that is no text": ("bad_request", {**PING, "kind": 1}),
    "a kind of 65 characters": ("bad_request", {**PING, "kind": "x" * 65}),
    "a field missing": ("bad_request", {"kind": "ping", "nonce": 1}),
    "a required field that is null": ("bad_request", {**PING, "at": None}),
    "a boolean for a number": ("bad_request", {**PING, "nonce": True}),
    "a float for a whole number": ("bad_request", {**PING, "nonce": 1.0}),
    "not a number": ("bad_request", {**FORWARD, "position": float("nan"), **TENSOR}),
    "a negative number": ("bad_request", {**PING, "nonce": -1}),
    "a number of 2^63": ("bad_request", {**PING, "nonce": 2**63}),
    "a position of 2^32": ("bad_request", {**FORWARD, "position": 2**32, **TENSOR}),
    "a session of 15 bytes": ("bad_request", {"kind": "session_close", "session": bytes(15)}),
    "a session as text": ("bad_request", {"kind": "session_close", "session": "0123456789abcdef"}),
    "layers that end where they start": ("bad_request", {**INIT, "layers": [8, 8]}),
    "layers of three numbers": ("bad_request", {**INIT, "layers": [8, 9, 10]}),
    "an unknown dtype": ("unsupported", {**INIT, "dtype": "f8"}),
    "a context of nothing": ("bad_request", {**INIT, "context": 0}),
    "a model with capitals": ("bad_request", {**INIT, "model": "B3-abc"}),
    "a model with a path": ("bad_request", {**INIT, "model": "../b3"}),
    "a model of 65 characters": ("bad_request", {**INIT, "model": "b" * 65}),
    "a peer of 31 bytes": ("bad_request", {**INIT, "prev": bytes(31)}),
    "nine addresses": ("bad_request", {**INIT, "next": {"peer": PEER_B, "addresses": ["192.0.2.7:1"] * 9}}),
    "an address without a port": (
        "bad_request",
        {**INIT, "next": {"peer": PEER_B, "addresses": ["192.0.2.7"]}},
    ),
    "an address with port 0": (
        "bad_request",
        {**INIT, "next": {"peer": PEER_B, "addresses": ["192.0.2.7:0"]}},
    ),
    "an address with a zero byte": (
        "bad_request",
        {**INIT, "next": {"peer": PEER_B, "addresses": ["a\0b:1"]}},
    ),
    "an address with an empty label": (
        "bad_request",
        {**INIT, "next": {"peer": PEER_B, "addresses": ["a..b:1"]}},
    ),
    "an address with a label of 64 characters": (
        "bad_request",
        {**INIT, "next": {"peer": PEER_B, "addresses": ["x" * 64 + ".example:1"]}},
    ),
    "a next hop without addresses": ("bad_request", {**INIT, "next": {"peer": PEER_B}}),
    "a temperature below 0": ("bad_request", {**INIT, "next": None, "sampling": {"temperature": -0.5}}),
    "a temperature that is not a number": (
        "bad_request",
        {**INIT, "next": None, "sampling": {"temperature": float("nan")}},
    ),
    "a forward without a payload": ("bad_request", {**FORWARD, "dtype": "f16", "shape": [2, 3]}),
    "a hidden without a payload": (
        "bad_request",
        {"kind": "hidden", "session": SESSION, "seq": 7, "position": 1},
    ),
    "a payload that is a text": (
        "bad_request",
        {**FORWARD, "dtype": "f16", "shape": [1, 1], "payload": "ab"},
    ),
    "a payload that is not last": ("bad_request", {**TENSOR, **FORWARD}),
    "a payload that is cut off": ("bad_request", cbor2.dumps({**FORWARD, **TENSOR})[:-1]),
    "a byte after the payload": ("bad_request", cbor2.dumps({**FORWARD, **TENSOR}) + b"\x00"),
    "a payload longer than its shape": ("bad_request", {**FORWARD, **TENSOR, "payload": bytes(13)}),
    "a payload shorter than its shape": ("bad_request", {**FORWARD, **TENSOR, "payload": bytes(11)}),
    "a payload without a shape": ("bad_request", {**FORWARD, "dtype": "f16", "payload": bytes(2)}),
    "no rows": ("bad_request", {**FORWARD, "dtype": "f16", "shape": [0, 3], "payload": b""}),
    "a forward in an unknown dtype": (
        "unsupported",
        {**FORWARD, **TENSOR, "dtype": "f8", "payload": bytes(12)},
    ),
    "4097 tokens": ("bad_request", {**TOKEN, "tokens": [0] * 4097}),
    "a token of 2^32": ("bad_request", {**TOKEN, "tokens": [2**32]}),
    "65 times spent": ("bad_request", {**TOKEN, "spent": [0] * 65}),
    "an abort without a reason": (
        "bad_request",
        {"kind": "abort_session", "session": SESSION, "code": "busy"},
    ),
    "an agent with control characters": (
        "bad_request",
        {"kind": "hello", "protocol": 1, "agent": "a\x1b[0m"},
    ),
    "33 features": ("bad_request", {"kind": "hello", "protocol": 1, "agent": "a", "features": ["f"] * 33}),
    "no rows asked of an ack": (
        "bad_request",
        {
            "kind": "session_ack",
            "session": SESSION,
            "engine_class": "",
            "max_rows": 0,
            "window": 8,
            "context": 1,
        },
    ),
}


def _json(value: Any) -> Any:
    """CBOR's values as JSON; a byte string becomes an object with its hex."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, list) else value


def _messages() -> list[dict[str, Any]]:
    cases = []
    for name, entries in GOOD.items():
        data = cbor2.dumps(entries)
        message = decode(data)
        case: dict[str, Any] = {"name": name, "cbor": data.hex(), "fields": _json(entries)}
        if isinstance(message, Unknown):
            case |= {"unknown": message.kind, "session": message.session and message.session.hex()}
        else:
            case["written"] = b"".join(encode(message)).hex()
        cases.append(case)
    return cases


def _bad_messages() -> list[dict[str, str]]:
    return [
        {"name": name, "cbor": (data if isinstance(data, bytes) else cbor2.dumps(data)).hex(), "code": code}
        for name, (code, data) in BAD.items()
    ]


def _noise() -> dict[str, Any]:
    sides = {
        "initiator": {
            "seed": b"\x11" * 32,
            "static_private": b"\x12" * 32,
            "ephemeral_private": b"\x13" * 32,
        },
        "responder": {
            "seed": b"\x21" * 32,
            "static_private": b"\x22" * 32,
            "ephemeral_private": b"\x23" * 32,
        },
    }
    keys: dict[str, Any] = {
        name: {k: v for k, v in side.items() if k != "seed"} for name, side in sides.items()
    }
    identities = {name: Identity(side["seed"]) for name, side in sides.items()}
    called = identities["responder"].peer
    dialler = Handshake(identities["initiator"], called, **keys["initiator"])
    acceptor = Handshake(identities["responder"], None, **keys["responder"])
    first = dialler.start()
    second = acceptor.receive(first)
    third = dialler.receive(second)
    left = Channel(identities["initiator"], called, **keys["initiator"], agent="left")
    right = Channel(identities["responder"], None, **keys["responder"], agent="right")
    right.receive(left.outgoing())
    left.receive(right.outgoing())
    from_initiator = left.outgoing()
    right.receive(from_initiator)
    flipped = bytes([second[40] ^ 1])
    return {
        "name": "Noise_XX_25519_AESGCM_SHA256",
        "prologue": b"intelnav/1".hex(),
        **{
            name: {key: value.hex() for key, value in side.items()} | {"peer": str(identities[name].peer)}
            for name, side in sides.items()
        },
        "messages": [first.hex(), second.hex(), third.hex()],
        "hello": {
            "from_initiator": b"".join(encode(Hello(1, "left"))).hex(),
            "from_responder": b"".join(encode(Hello(1, "right"))).hex(),
        },
        "bytes": {
            "from_initiator": [(len(first).to_bytes(2, "big") + first).hex(), from_initiator.hex()],
            "from_responder": [(len(second).to_bytes(2, "big") + second).hex(), right.outgoing().hex()],
        },
        "refused_by_initiator": [
            {"name": "a bit flipped", "message": (second[:40] + flipped + second[41:]).hex()},
            {"name": "cut off", "message": second[:-1].hex()},
            {"name": "only the ephemeral key", "message": second[:32].hex()},
            {"name": "an ephemeral key of low order", "message": (bytes(32) + second[32:]).hex()},
            {"name": "empty", "message": ""},
        ],
        "refused_by_responder": [
            {"name": "data on the first message", "message": (first + b"\x00").hex()},
            {"name": "31 bytes", "message": first[:31].hex()},
            {"name": "an ephemeral key of low order", "message": bytes(32).hex()},
            {"name": "empty", "message": ""},
        ],
    }


def _payloads() -> list[dict[str, Any]]:
    sizes = [(rows, width) for rows in (1, 2, 128) for width in (1, 576, 4096)]
    return [
        {"dtype": str(dtype), "rows": rows, "width": width, "bytes": rows * dtype.row_bytes(width)}
        for dtype in Dtype
        for rows, width in sizes
    ]


def _seeds() -> list[dict[str, Any]]:
    """Lists put together by hand here, but for the first, which this implementation makes."""
    signer, other = (Identity(bytes([n]) * 32) for n in (0x31, 0x32))
    issued, day = 1_800_000_000, 86_400
    now = issued + day
    texts = ["192.0.2.9:7717", "[2001:db8::9]:7717", "seeds.example:7717"]
    expires = issued + 90 * day
    good = {"issued": issued, "expires": expires, "addresses": texts}

    def signed(content: dict[str, Any] | bytes, **changes: Any) -> bytes:
        data = content if isinstance(content, bytes) else cbor2.dumps(content)
        entries = {"body": data, "pk": signer.peer.key, "sig": signer.sign(b"intelnav-seeds/1:" + data)}
        return cbor2.dumps({key: value for key, value in (entries | changes).items() if value is not None})

    whole = signed(good)
    made = sign_seeds(signer, tuple(map(Address.parse, texts)), issued=issued, expires=expires)
    body = cbor2.dumps(good)
    accepted = {
        "three addresses": made,
        "an unknown field": signed({**good, "later": [1]}),
        "the longest life": signed({**good, "expires": issued + 366 * day}),
        "256 addresses": signed({**good, "addresses": [f"192.0.2.9:{port}" for port in range(1, 257)]}),
    }
    refused = {
        "bad signature": whole[:-1] + bytes([whole[-1] ^ 1]),
        "signed without the context": signed(good, sig=signer.sign(body)),
        "signed by another key, which it names": signed(
            good, pk=other.peer.key, sig=other.sign(b"intelnav-seeds/1:" + body)
        ),
        "signed by another key, under the right name": signed(
            good, sig=other.sign(b"intelnav-seeds/1:" + body)
        ),
        "another body": signed(good, body=cbor2.dumps({**good, "addresses": ["192.0.2.66:7717"]})),
        "expired": signed({**good, "expires": now}),
        "expires before it was issued": signed({**good, "issued": issued + 91 * day}),
        "lives too long": signed({**good, "expires": issued + 366 * day + 1}),
        "no address": signed({**good, "addresses": []}),
        "257 addresses": signed({**good, "addresses": [f"192.0.2.9:{port}" for port in range(1, 258)]}),
        "port 0": signed({**good, "addresses": ["192.0.2.9:0"]}),
        "an address with a space": signed({**good, "addresses": ["192.0.2.9 :1"]}),
        "no expiry": signed({key: value for key, value in good.items() if key != "expires"}),
        "a time that is a float": signed({**good, "issued": float(issued)}),
        "no signature": signed(good, sig=None),
        "a short key": signed(good, pk=signer.peer.key[:31]),
        "a body that is a map": signed(good, body=good),
        "a body that is no CBOR": signed(b"seeds"),
        "bytes after the list": whole + b"\x00",
        "bytes after the body": signed(body + b"\x00"),
        "oversized": signed({**good, "padding": bytes(16 * 1024)}),
        "empty": b"",
        "text": b"<html>404</html>",
    }
    return [
        {
            "name": name,
            "data": data.hex(),
            "key": str(signer.peer),
            "now": now,
            "refused": data in refused.values(),
        }
        for name, data in (accepted | refused).items()
    ]


RECORD_NOW = 1_800_000_000
RECORD_KEY = model_key("b3-" + "a" * 52)
ADVERT = {
    "key": RECORD_KEY,
    "seq": 1_800_000_000_000,
    "expires": RECORD_NOW + 1800,
    "addrs": ["192.0.2.7:7717", "[2001:db8::7]:7717"],
    "slices": [[8, 15], [22, 30]],
    "chunks": "192.0.2.7:7718",
    "engine_class": "llama.cpp/cpu",
    "load": 0.25,
}
LISTED = ["b3-" + "a" * 52, "Tiny", "llama", 30, 2**33, "Q4_K"]
MODELS = {key: ADVERT[key] for key in ("seq", "expires", "addrs")} | {"key": MODELS_KEY, "models": [LISTED]}
RELAY = {key: ADVERT[key] for key in ("seq", "expires", "addrs")} | {"key": RELAY_KEY, "relay": 16}
LEAST = {key: ADVERT[key] for key in ("key", "seq", "expires", "addrs", "slices")}
HOST = Identity(b"\x31" * 32)

# Name, key that was asked for, and the body; None for the code of a good one.
RECORDS: dict[str, tuple[bytes, Any, str | None]] = {
    "an advert": (RECORD_KEY, ADVERT, None),
    "only what must be": (RECORD_KEY, LEAST, None),
    "null is absent": (RECORD_KEY, {**LEAST, "chunks": None, "load": None}, None),
    "an unknown field": (RECORD_KEY, {**LEAST, "colour": "blue"}, None),
    "a withdrawal": (RECORD_KEY, {**LEAST, "slices": [], "addrs": []}, None),
    "models": (MODELS_KEY, MODELS, None),
    "a relay": (RELAY_KEY, RELAY, None),
    "expires in a second": (RECORD_KEY, {**LEAST, "expires": RECORD_NOW + 1}, None),
    "expires in 32 minutes": (RECORD_KEY, {**LEAST, "expires": RECORD_NOW + 1920}, None),
    "just expired": (RECORD_KEY, {**LEAST, "expires": RECORD_NOW}, "timeout"),
    "expires in 32 minutes and a second": (
        RECORD_KEY,
        {**LEAST, "expires": RECORD_NOW + 1921},
        "bad_request",
    ),
    "under a foreign key": (model_key("b3-" + "b" * 52), ADVERT, "bad_request"),
    "models under a model's key": (RECORD_KEY, {**MODELS, "key": RECORD_KEY}, "bad_request"),
    "slices under the relay key": (RELAY_KEY, {**ADVERT, "key": RELAY_KEY}, "bad_request"),
    "a body of 513 bytes": (
        RECORD_KEY,
        {**LEAST, "pad": bytes(513 - 3 - 4 - len(cbor2.dumps(LEAST)))},
        "too_long",
    ),
    "without a seq": (RECORD_KEY, {k: v for k, v in LEAST.items() if k != "seq"}, "bad_request"),
    "a seq below 0": (RECORD_KEY, {**LEAST, "seq": -1}, "bad_request"),
    "a seq of 2^63": (RECORD_KEY, {**LEAST, "seq": 2**63}, "bad_request"),
    "a fraction of a second": (RECORD_KEY, {**LEAST, "expires": RECORD_NOW + 0.5}, "bad_request"),
    "a key of 19 bytes": (RECORD_KEY, {**LEAST, "key": RECORD_KEY[:19]}, "bad_request"),
    "layers that end where they start": (RECORD_KEY, {**LEAST, "slices": [[8, 8]]}, "bad_request"),
    "33 slices": (RECORD_KEY, {**LEAST, "slices": [[n, n + 1] for n in range(33)]}, "bad_request"),
    "slices at no address": (RECORD_KEY, {**LEAST, "addrs": []}, "bad_request"),
    "nine addresses": (RECORD_KEY, {**LEAST, "addrs": ["192.0.2.7:1"] * 9}, "bad_request"),
    "an address with port 0": (RECORD_KEY, {**LEAST, "addrs": ["192.0.2.7:0"]}, "bad_request"),
    "chunks at no port": (RECORD_KEY, {**LEAST, "chunks": "192.0.2.7"}, "bad_request"),
    "a load above 1": (RECORD_KEY, {**LEAST, "load": 1.5}, "bad_request"),
    "a load that is not a number": (RECORD_KEY, {**LEAST, "load": float("nan")}, "bad_request"),
    "a tag": (RECORD_KEY, {**LEAST, "slices": cbor2.CBORTag(4, [1, 2])}, "bad_request"),
    "a model of five items": (MODELS_KEY, {**MODELS, "models": [LISTED[:5]]}, "bad_request"),
    "no map": (RECORD_KEY, [1, 2], "bad_request"),
}


def _records() -> dict[str, Any]:
    cases = []
    for name, (key, entries, code) in RECORDS.items():
        body = cbor2.dumps(entries)
        signature = HOST.sign(b"intelnav-advert/1:" + body)
        data = cbor2.dumps({"body": body, "pk": HOST.peer.key, "sig": signature})
        cases.append({"name": name, "key": key.hex(), "record": data.hex(), "code": code})
    good = cbor2.dumps(LEAST)
    signature = HOST.sign(b"intelnav-advert/1:" + good)
    whole = {"body": good, "pk": HOST.peer.key, "sig": signature}
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    for name, outer, code in (
        ("an entry beside the three", {**whole, "more": 1}, "bad_request"),
        ("no signature", {k: v for k, v in whole.items() if k != "sig"}, "bad_request"),
        ("a signature of 63 bytes", {**whole, "sig": signature[:63]}, "bad_request"),
        ("a body that is a map", {**whole, "body": {"key": RECORD_KEY}}, "too_long"),
        ("a bit of the signature flipped", {**whole, "sig": flipped}, "forged"),
        ("another peer's key", {**whole, "pk": Identity(b"\x32" * 32).peer.key}, "forged"),
        ("signed without its purpose", {**whole, "sig": HOST.sign(good)}, "forged"),
        ("another body", {**whole, "body": cbor2.dumps({**LEAST, "seq": 9})}, "forged"),
    ):
        cases.append(
            {"name": name, "key": RECORD_KEY.hex(), "record": cbor2.dumps(outer).hex(), "code": code}
        )
    cut = cbor2.dumps(whole)
    for name, data in (("cut off", cut[:-1]), ("a byte too many", cut + b"\x00"), ("empty", b"")):
        cases.append({"name": name, "key": RECORD_KEY.hex(), "record": data.hex(), "code": "bad_request"})
    return {"now": RECORD_NOW, "peer": str(HOST.peer), "cases": cases}


def _blob(data: bytes) -> Blob:
    hasher = BlobHasher()
    hasher.update(data)
    return hasher.blob()


def _described(data: bytes) -> dict[str, Any]:
    blob = _blob(data)
    pieces = base64.b64encode(b"".join(blob.pieces)).decode()
    return {"hash": blob.cid, "size": blob.size, "pieces": pieces}


def _bundle(name: str, tensors: list[tuple[str, list[int]]]) -> dict[str, Any]:
    """A bundle of f32 tensors that are all zeros, aligned to 32 bytes."""
    described = []
    offset = 0
    for tensor, shape in tensors:
        described.append({"name": tensor, "type": "F32", "shape": shape, "offset": offset})
        offset += -(-4 * math.prod(shape) // 32) * 32
    return {"name": name, "tensors": described, **_described(bytes(offset))}


METADATA = b"".join(
    encode_entry(key, value)
    for key, value in {
        "general.architecture": Value.text("llama"),
        "general.name": Value.text("vector"),
        "llama.block_count": Value.integer(2),
        "llama.context_length": Value.integer(64),
        "llama.embedding_length": Value.integer(32),
        "llama.attention.head_count": Value.integer(2),
        "llama.attention.head_count_kv": Value.array(ValueType.U32, [1, 2]),
    }.items()
)
TOKENIZER = b"".join(
    encode_entry(key, value)
    for key, value in {
        "tokenizer.ggml.model": Value.text("no_vocab"),
        "tokenizer.ggml.scores": Value.array(ValueType.F32, [0.0, 1.0]),
    }.items()
)


def _manifest() -> dict[str, Any]:
    """A model of two blocks; its embedding has three pieces, the last of them shorter."""
    return {
        "format": "intelnav/manifest/1",
        "name": "vector",
        "architecture": "llama",
        "block_count": 2,
        "quantisation": "F32",
        "alignment": 32,
        "file": {"size": 3_000_000, "sha256": "5a" * 32},
        "metadata": _described(METADATA),
        "tokenizer": _described(TOKENIZER),
        "bundles": [
            _bundle("common", [("rope_freqs.weight", [9])]),
            _bundle("embed", [("token_embd.weight", [32, 20_000])]),
            _bundle("blk.0", [("blk.0.attn_norm.weight", [32]), ("blk.0.attn_q.weight", [32, 32])]),
            _bundle("blk.1", [("blk.1.attn_norm.weight", [32]), ("blk.1.attn_q.weight", [32, 33])]),
            _bundle("head", [("output_norm.weight", [32])]),
        ],
    }


def _canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _changed(path: str, value: Any) -> bytes:
    document: Any = _manifest()
    *parents, last = (int(step) if step.isdecimal() else step for step in path.split("/"))
    place = document
    for step in parents:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return _canonical(document)


def _bad_manifests() -> dict[str, tuple[str, bytes]]:
    sound = _canonical(_manifest())
    return {
        "nothing": ("K2", b""),
        "no object": ("K2", b"[]"),
        "nested without end": ("K2", b"[" * 5000),
        "not UTF-8": ("K2", b"\xff" + sound[1:]),
        "a line feed at the end": ("K2", sound + b"\n"),
        "a space": ("K2", sound.replace(b",", b", ", 1)),
        "keys in another order": ("K2", json.dumps(_manifest(), separators=(",", ":")).encode()),
        "a key given twice": ("K2", sound.replace(b'"alignment":32', b'"alignment":32,"alignment":32')),
        "an escape that is not needed": ("K2", sound.replace(b"vector", b"\\u0076ector")),
        "an unknown field": ("K2", _changed("colour", "blue")),
        "a field missing": ("K2", _changed("file", ...)),
        "another format": ("K2", _changed("format", "intelnav/manifest/2")),
        "a number as a float": ("K2", sound.replace(b'"alignment":32', b'"alignment":32.0')),
        "a boolean for a number": ("K3", _changed("block_count", True)),
        "no blocks": ("K3", _changed("block_count", 0)),
        "10^30 blocks": ("K3", _changed("block_count", 10**30)),
        "a name of nothing": ("K3", _changed("name", "")),
        "a name with an escape sequence": ("K3", _changed("name", "\x1b[2J")),
        "half a surrogate as a name": ("K3", _changed("name", "\ud800")),
        "an alignment of 48": ("K3", _changed("alignment", 48)),
        "an unknown quantisation": ("K3", _changed("quantisation", "F99")),
        "a quantisation that is not that of most bytes": ("K3", _changed("quantisation", "Q8_0")),
        "a SHA-256 in capitals": ("K3", _changed("file/sha256", "5A" * 32)),
        "a file that cannot hold the tensors": ("K3", _changed("file/size", 1000)),
        "a path for a hash": ("K4", _changed("metadata/hash", "b3-../../../../etc/passwd")),
        "a hash in capitals": ("K4", _changed("metadata/hash", _blob(METADATA).cid.upper())),
        "a hash with a line feed": ("K4", _changed("metadata/hash", _blob(METADATA).cid + "\n")),
        "a hash with bits to spare": ("K4", _changed("metadata/hash", "b3-" + "a" * 51 + "b")),
        "no metadata": ("K4", _changed("metadata", _described(b""))),
        "a piece too few": ("K5", _changed("bundles/1/pieces", base64.b64encode(bytes(64)).decode())),
        "pieces that are not base64": ("K5", _changed("bundles/1/pieces", "?" * 128)),
        "pieces of a blob that is one piece": (
            "K5",
            _changed("metadata/pieces", base64.b64encode(bytes(32)).decode()),
        ),
        "one hash for two contents": ("K5", _changed("bundles/2/hash", _blob(METADATA).cid)),
        "a bundle missing": ("K6", _changed("bundles/0", ...)),
        "bundles in another order": ("K6", _changed("bundles/0/name", "embed")),
        "a tensor in the wrong bundle": (
            "K6",
            _changed("bundles/2/tensors/0/name", "blk.1.attn_norm.weight"),
        ),
        "a tensor twice": ("K6", _changed("bundles/2/tensors/1/name", "blk.0.attn_norm.weight")),
        "a tensor with a name of 64 bytes": ("K6", _changed("bundles/0/tensors/0/name", "x" * 64)),
        "a tensor of an unknown type": ("K6", _changed("bundles/2/tensors/0/type", "F99")),
        "a tensor without dimensions": ("K6", _changed("bundles/2/tensors/0/shape", [])),
        "a tensor of five dimensions": ("K6", _changed("bundles/2/tensors/0/shape", [1] * 5)),
        "a tensor with no rows": ("K6", _changed("bundles/2/tensors/1/shape", [32, 0])),
        "a tensor of 2^80 values": ("K6", _changed("bundles/2/tensors/1/shape", [2**40, 2**40])),
        "rows that are no whole number of blocks": ("K6", _changed("bundles/0/tensors/0/type", "Q4_0")),
        "tensors that overlap": ("K6", _changed("bundles/2/tensors/1/offset", 96)),
        "tensors with a gap": ("K6", _changed("bundles/2/tensors/1/offset", 160)),
        "a bundle with another size": ("K6", _changed("bundles/4/size", 160)),
    }


def _manifests() -> dict[str, Any]:
    good = _canonical(_manifest())
    manifest = Manifest.from_bytes(good)
    slices = []
    for layers in (LayerRange(0, 1), LayerRange(0, 2), LayerRange(1, 2)):
        tokenizer = TOKENIZER if layers.start == 0 else None
        plan = plan_slice(model_of(manifest, METADATA, tokenizer), layers, manifest.cid)
        slices.append(
            {
                "layers": [layers.start, layers.end],
                "header": plan.header.hex(),
                "bundles": [list(place) for place in plan.bundles],
                "size": plan.size,
            }
        )
    return {
        "good": {
            "manifest": good.hex(),
            "cid": manifest.cid,
            "metadata": METADATA.hex(),
            "tokenizer": TOKENIZER.hex(),
            "slices": slices,
        },
        "bad": [
            {"name": name, "manifest": data.hex(), "rule": rule}
            for name, (rule, data) in _bad_manifests().items()
        ],
    }


def main() -> None:
    """Write every file."""
    for name, content in (
        ("messages", _messages()),
        ("bad_messages", _bad_messages()),
        ("noise", _noise()),
        ("payloads", _payloads()),
        ("seeds", _seeds()),
        ("records", _records()),
        ("manifests", _manifests()),
    ):
        text = json.dumps(content, indent=1, ensure_ascii=True)
        (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
