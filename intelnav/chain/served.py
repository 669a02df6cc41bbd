"""What a hop needs to know of the sessions that it serves, and of the slices that they run in."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import PeerId
from intelnav.encoding.cbor import MAX_HEAD
from intelnav.engine.interface import SliceEngine
from intelnav.net.connection import Connection
from intelnav.wire.messages import SessionInit
from intelnav.wire.session import HopSession, check_init


class Hosting(Protocol):
    """The slices that this node has loaded."""

    def ready(self, model: str) -> Sequence[SliceEngine]:
        """Engines of that model that can take sessions now."""
        ...

    def draining(self, model: str) -> Sequence[SliceEngine]:
        """Engines of that model that take no more sessions, and run on for those that are open."""
        ...


@dataclass(frozen=True, slots=True)
class Running:
    """An open session, for display. `prev` and `next` are its neighbours in the chain; without `next` it ends here."""

    session: bytes
    entry: PeerId
    prev: PeerId
    next: PeerId | None
    seconds: float
    tokens: int


@dataclass(eq=False, slots=True)
class Session:
    """One session and the links that it lives on; `served` is there once it is open."""

    init: SessionInit
    entry: Connection
    opening: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    served: "Served | None" = None
    prev: Connection | None = None
    next: Connection | None = None
    since: float = field(default_factory=time.monotonic)
    last_used: float = field(default_factory=time.monotonic)

    def links(self) -> set[Connection]:
        """Every connection that this session depends on."""
        return {link for link in (self.entry, self.prev, self.next) if link is not None}

    def expects(self) -> int:
        """Bytes of the largest message that may come from `prev`; 0 as long as it is not open."""
        if self.served is None:
            return 0
        info = self.served.engine.info
        return MAX_HEAD + info.max_rows * self.init.dtype.row_bytes(info.width)

    def depends_on(self, link: Connection) -> bool:
        """Whether it needs this link. Which one `prev` uses shows with its first forward; until then it is any."""
        is_prev = self.prev is None and self.served is not None and link.peer == self.init.prev
        return is_prev or link in (self.entry, self.prev, self.next)

    def running(self, now: float) -> Running:
        """What is shown of it."""
        init = self.init
        return Running(
            init.session,
            self.entry.peer,
            init.prev,
            init.next.peer if init.next is not None else None,
            now - self.since,
            self.served.rules.length if self.served is not None else 0,
        )


@dataclass(frozen=True, slots=True)
class Served:
    """What an open session has of this node: its rules, and its sequence in an engine."""

    rules: HopSession
    engine: SliceEngine
    sequence: int


def engine_for(init: SessionInit, hosting: Hosting, *, entry: PeerId, me: PeerId) -> SliceEngine:
    """The slice of this node, `me`, that a session asked for by `entry` runs in; PeerError if there is none."""
    starting = [one for one in hosting.ready(init.model) if one.info.layers.start == init.layers.start]
    if starting:
        # Of several the shortest that has all of the layers; if none has, the check says so.
        engine = min(starting, key=lambda one: (one.info.layers.end < init.layers.end, one.info.layers.end))
        info = engine.info
        check_init(
            init,
            entry=entry,
            me=me,
            layers=info.layers,
            blocks=info.blocks,
            context=info.context,
            engine_class=info.engine_class,
        )
        return engine
    if any(one.info.layers.start == init.layers.start for one in hosting.draining(init.model)):
        raise PeerError(Code.DRAINING, f"layers {init.layers} of {init.model} are being given up here")
    raise PeerError(Code.NOT_HOSTING, f"layers {init.layers} of {init.model} are not loaded here")
