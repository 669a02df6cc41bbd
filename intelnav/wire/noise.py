"""Noise_XX_25519_AESGCM_SHA256 with the node's identity bound to it ([T1], [T2] in docs/protocol.md).

The one module that knows the `noiseprotocol` package. It has no randomness: keys are arguments.
"""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from noise.backends.default import noise_backend
from noise.backends.default.keypairs import KeyPair25519
from noise.exceptions import NoiseMaxNonceError, NoiseValueError
from noise.noise_protocol import NoiseProtocol
from noise.state import CipherState, HandshakeState

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.encoding import cbor
from intelnav.encoding.fields import PEER, SIGNATURE

MAX_CIPHERTEXT = 65_535
TAG = 16
MAX_PLAINTEXT = MAX_CIPHERTEXT - TAG

_NAME = b"Noise_XX_25519_AESGCM_SHA256"
_PROLOGUE = b"intelnav/1"
_BINDING = b"intelnav-noise-static-key:"
_NONCE = struct.Struct(">4xQ")
_LAST_NONCE = 2**64 - 1

# What hostile input makes the package raise: short or low-order keys, forged tags, spent nonces.
_FAILURES = (ValueError, InvalidTag, NoiseValueError, NoiseMaxNonceError)


class Transport:
    """The two ciphers of a finished handshake. Frames are unsealed in the order in which they were sealed."""

    def __init__(self, peer: PeerId, sealing: CipherState, opening: CipherState) -> None:
        self.peer = peer
        self._sealing = _Counted(sealing)
        self._opening = _Counted(opening)

    def seal(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Ciphertext of at most 65,519 bytes of plaintext; 16 bytes longer."""
        if len(plaintext) > MAX_PLAINTEXT:
            raise ValueError(f"{len(plaintext)} bytes do not fit one frame")
        sealed = self._sealing.cipher.encrypt(self._sealing.nonce(), plaintext, None)
        self._sealing.used += 1
        return sealed

    def unseal(self, ciphertext: bytes | bytearray | memoryview) -> bytes:
        """The plaintext of the other side's next frame; raises PeerError if it is not that."""
        try:
            plaintext = self._opening.cipher.decrypt(self._opening.nonce(), ciphertext, None)
        except (InvalidTag, ValueError) as error:
            raise PeerError(Code.BAD_REQUEST, "a frame does not decrypt") from error
        self._opening.used += 1
        return plaintext


class _Counted:
    """AES-GCM under a finished handshake's key, with the nonces that Noise prescribes: a counter from 0.

    The package's own cipher state does the same by way of six calls, on a path that every token takes eight times.
    """

    def __init__(self, state: CipherState) -> None:
        self.cipher = AESGCM(state.k)
        self.used = 0

    def nonce(self) -> bytes:
        """The nonce of the next frame; PeerError when all are used up."""
        if self.used >= _LAST_NONCE:
            raise PeerError(Code.CLOSED, "all nonces of this connection are used up")
        return _NONCE.pack(self.used)


class Handshake:
    """One side of the handshake: feed it the other side's messages in turn until `transport` is there.

    `dialled` is the peer that must answer, or None on the side that accepts. Both keys are 32 bytes of
    X25519; the ephemeral one must be fresh for every handshake.
    """

    def __init__(
        self, identity: Identity, dialled: PeerId | None, *, static_private: bytes, ephemeral_private: bytes
    ) -> None:
        self.transport: Transport | None = None
        self._dialled = dialled
        self._initiator = dialled is not None
        static = KeyPair25519.from_private_bytes(static_private)
        self._proof = cbor.dump(
            {"pk": identity.peer.key, "sig": identity.sign(_BINDING + static.public_bytes)}
        )
        # Its `NoiseConnection` would drop the handshake state, and the remote static key with it, when done.
        protocol = NoiseProtocol(_NAME, noise_backend)
        protocol.prologue = _PROLOGUE
        protocol.initiator = self._initiator
        protocol.keypairs |= {"s": static, "e": KeyPair25519.from_private_bytes(ephemeral_private)}
        protocol.initialise_handshake_state()
        self._state: HandshakeState = protocol.handshake_state

    def start(self) -> bytes:
        """The first message, for the side that dials; nothing for the other."""
        first = bytearray()
        if self._initiator:
            self._state.write_message(b"", first)
        return bytes(first)

    def receive(self, message: bytes) -> bytes:
        """Take the other side's next message; the answer to send, or nothing if none is due.

        Raises PeerError if it is not the handshake's next message, or not from the peer that was dialled.
        """
        payload, answer = bytearray(), bytearray()
        try:
            ciphers = self._state.read_message(message, payload)
            opening = ciphers is None and not self._initiator
            peer = None if opening else self._proven_peer(bytes(payload))
            if opening and payload:
                raise PeerError(Code.BAD_REQUEST, "the handshake's first message carries data")
            if ciphers is None:
                ciphers = self._state.write_message(self._proof, answer)
        except _FAILURES as error:
            raise PeerError(Code.BAD_REQUEST, "the handshake failed") from error
        if peer is not None:
            from_initiator, from_responder = ciphers
            self.transport = (
                Transport(peer, sealing=from_initiator, opening=from_responder)
                if self._initiator
                else Transport(peer, sealing=from_responder, opening=from_initiator)
            )
        return bytes(answer)

    def _proven_peer(self, proof: bytes) -> PeerId:
        """Whose static key the other side's is, by its own signature."""
        entries, _ = cbor.load(proof)
        peer: PeerId = PEER.read(entries.get("pk"))
        signature: bytes = SIGNATURE.read(entries.get("sig"))
        if not peer.verifies(_BINDING + self._state.rs.public_bytes, signature):
            raise PeerError(Code.BAD_REQUEST, "the peer does not own the key that it shows")
        if self._dialled not in (None, peer):
            raise PeerError(Code.BAD_REQUEST, f"dialled {self._dialled}, but {peer} answered")
        return peer
