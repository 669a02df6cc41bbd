"""The messages of protocol version 1, as values; `codec` turns them into bytes and back.

Every class is one `kind` (its snake-case name). Field checks that need no context happen in the codec; those
that need the session's state happen in `session`. Fields are documented in docs/protocol.md, "Messages".

What travels for each token is not frozen, here and elsewhere, since that would double the time that it takes to make;
nobody changes it all the same.
"""

from dataclasses import dataclass

from intelnav.domain.advert import Address
from intelnav.domain.errors import Code
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import PeerId
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange

PROTOCOL = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of both sides."""

    protocol: int
    agent: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NextHop:
    """Whom a hop sends its hidden states to, and where that peer listens."""

    peer: PeerId
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class SessionInit:
    """Entry to hop: open a session over `layers`. `next` is None at the last hop of the ring.

    `sampling` is given to a hop that samples: it must own the head. A last hop without it answers with
    `Hidden`.
    """

    session: bytes
    model: str
    layers: LayerRange
    dtype: Dtype
    context: int
    prev: PeerId
    next: NextHop | None
    sampling: Sampling | None = None
    engine_class: str | None = None


@dataclass(frozen=True, slots=True)
class SessionAck:
    """Hop to entry: the session is open, and what the hop allows in it.

    `max_rows` rows at most in one forward, `window` forwards at most under way, `context` tokens in all.
    """

    session: bytes
    engine_class: str
    max_rows: int
    window: int
    context: int


@dataclass(slots=True)
class ForwardHidden:
    """Prev to hop: rows of activations for the positions from `position` on.

    `spent` holds the microseconds that each earlier hop kept this forward, for display; nobody verifies it.
    """

    session: bytes
    seq: int
    position: int
    state: HiddenState
    kv_truncate_to: int | None = None
    sample_from: int | None = None
    spent: tuple[int, ...] = ()


@dataclass(slots=True)
class Token:
    """Tail to entry, once for each forward: the sampled tokens, none if none was asked for."""

    session: bytes
    seq: int
    position: int
    tokens: tuple[int, ...]
    spent: tuple[int, ...] = ()


@dataclass(slots=True)
class Hidden:
    """Last hop to entry, once for each forward, where the entry keeps the head.

    Carries every row: the entry's own layers need them all in their cache.
    """

    session: bytes
    seq: int
    position: int
    state: HiddenState
    spent: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionClose:
    """Entry to hop: the session is over."""

    session: bytes


@dataclass(frozen=True, slots=True)
class AbortSession:
    """Any to any: the session cannot go on."""

    session: bytes
    code: Code
    reason: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? `at` is the sender's clock, returned untouched."""

    nonce: int
    at: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to `Ping`, with its fields."""

    nonce: int
    at: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """A kind that this version does not know; `session` is given if the message named one. See [M5]."""

    kind: str
    session: bytes | None


Message = (
    Hello
    | SessionInit
    | SessionAck
    | ForwardHidden
    | Token
    | Hidden
    | SessionClose
    | AbortSession
    | Ping
    | Pong
    | Unknown
)
