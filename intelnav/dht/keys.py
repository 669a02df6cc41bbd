"""Where in the DHT things are: 160-bit keys and node ids ([A1], [A7], [A8], [A10] and [I3] in docs/protocol.md)."""

from hashlib import sha256

KEY_BYTES = 20


def _key(text: str) -> bytes:
    return sha256(text.encode()).digest()[:KEY_BYTES]


MODELS_KEY = _key("intelnav/models/1")
RELAY_KEY = _key("intelnav/relay/1")


def model_key(cid: str) -> bytes:
    """The key under which the hosts of the model with this CID are found, 20 bytes."""
    return _key(f"intelnav/model/1|{cid}")


def peer_key(key: bytes) -> bytes:
    """The key under which the node with this public key says that it hosts or relays, 20 bytes."""
    return sha256(b"intelnav/peer/1|" + key).digest()[:KEY_BYTES]


def node_id(key: bytes) -> bytes:
    """The place in the DHT of the node with this public key, 20 bytes."""
    return sha256(key).digest()[:KEY_BYTES]


def distance(one: bytes, other: bytes) -> int:
    """The XOR metric between two keys or ids."""
    return int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
