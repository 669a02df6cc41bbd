"""Every error a user or a peer can cause, each with a stable code that wire, API and logs share."""

from enum import StrEnum


class Code(StrEnum):
    """Why a session was refused or ended; the codes of [M6] in docs/protocol.md."""

    BUSY = "busy"
    DRAINING = "draining"
    NOT_HOSTING = "not_hosting"
    BAD_REQUEST = "bad_request"
    UNSUPPORTED = "unsupported"
    TOO_LONG = "too_long"
    CONTRIBUTE_FIRST = "contribute_first"
    ENGINE_FAILED = "engine_failed"
    TIMEOUT = "timeout"
    CLOSED = "closed"


class IntelNavError(Exception):
    """Base of all expected errors: `str()` is a sentence for a person, `code` is for programs."""

    code: str


class ConfigError(IntelNavError):
    """The user's file or option is wrong; the message names the key, the value and the fix."""

    code = "config"


class ContentError(IntelNavError):
    """Bytes of a model are not what they claim to be; they are never loaded."""

    code = "content"


class StoreFull(IntelNavError):
    """There is no room for a slice, by the quota or on the disk; the message has the figures."""

    code = "store_full"


class EngineError(IntelNavError):
    """This slice cannot run, or its worker died."""

    code = Code.ENGINE_FAILED


class PeerError(IntelNavError):
    """The other side broke the protocol, refused or went away."""

    code: Code

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
