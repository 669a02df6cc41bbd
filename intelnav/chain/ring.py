"""The remote part of one generation: an open session on every hop, forwards in, the last hop's replies out."""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from intelnav.chain.peerbook import PeerBook
from intelnav.chain.route import RouteHop
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import PeerId
from intelnav.domain.sampling import Sampling
from intelnav.encoding.cbor import MAX_HEAD
from intelnav.net.connection import Connection
from intelnav.net.peers import Peers
from intelnav.wire.messages import (
    AbortSession,
    Hidden,
    Message,
    NextHop,
    SessionAck,
    SessionClose,
    SessionInit,
    Token,
)
from intelnav.wire.session import EntrySession

log = logging.getLogger(__name__)

OPEN_SECONDS = 15.0
# A stage that is silent for this long on one forward is as good as lost.
REPLY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What the entry wants of every hop of one session, and what it will hold their answers against.

    `context` is the least number of tokens that a hop must have room for; without `sampling` the entry keeps the
    head, and hidden states come back.
    """

    model: str
    dtype: Dtype
    width: int
    vocabulary: int
    context: int
    sampling: Sampling | None


class HopError(PeerError):
    """A hop refused or was lost; `peer` says which one. `suspects` are all that may be to blame."""

    def __init__(self, code: Code, hop: RouteHop, reason: str, suspects: Sequence[PeerId] = ()) -> None:
        super().__init__(code, f"peer {hop.peer.short} (layers {hop.layers}): {reason}")
        self.peer = hop.peer
        self.suspects = tuple(suspects) or (hop.peer,)


class Rings:
    """All rings that this node has open; takes the messages that are meant for an entry.

    `book` has what was observed of the peers that could be hops; who failed a ring is noted there.
    """

    def __init__(self, peers: Peers) -> None:
        self.book = PeerBook()
        self._peers = peers
        self._open: dict[bytes, Ring] = {}

    def __len__(self) -> int:
        return len(self._open)

    def knows(self, session: bytes) -> bool:
        """Whether this session was opened by us."""
        return session in self._open

    def on_message(self, link: Connection, message: SessionAck | Token | Hidden | AbortSession) -> None:
        """Take an answer of a hop; one for a session that is over falls away."""
        if (ring := self._open.get(message.session)) is not None:
            ring.on_message(link, message)

    def on_round_trip(self, link: Connection) -> None:
        """Note how far away a peer is."""
        if link.round_trip is not None:
            self.book.measured(link.peer, link.round_trip * 1000, time.monotonic())

    def on_lost(self, link: Connection) -> None:
        """Tell the rings that used this link."""
        for ring in list(self._open.values()):
            ring.on_lost(link)

    def uses(self, link: Connection) -> bool:
        """Whether an open ring depends on this link."""
        return any(ring.uses(link) for ring in self._open.values())

    async def watch_silence(self) -> None:
        """Fail rings that do not answer any more; runs until cancelled. A timer for each token would cost more."""
        while True:
            await anyio.sleep(REPLY_SECONDS / 20)
            before = time.monotonic() - REPLY_SECONDS
            for ring in list(self._open.values()):
                if ring.waiting_since is not None and ring.waiting_since < before:
                    ring.give_up(f"no reply from the ring within {REPLY_SECONDS:g} s")

    @asynccontextmanager
    async def open(self, route: Sequence[RouteHop], terms: Terms) -> AsyncIterator["Ring"]:
        """Open a session on every hop of `route`; they are closed on the way out, whatever happens.

        Raises HopError for the first hop that refuses, cannot be reached or does not answer in 15 s.
        """
        ring = Ring(os.urandom(16), self._peers, route, terms)
        self._open[ring.session] = ring
        try:
            await ring.start()
            log.debug("a ring is open", extra={"session": ring.session, "model": terms.model})
            yield ring
        finally:
            del self._open[ring.session]
            ring.close()
            if ring.failure is not None:
                # Without the peer's own words: it knows tokens or activations, and could put them there.
                about = {"session": ring.session, "model": terms.model, "peer": ring.failure.peer}
                log.info("a ring failed: %s", ring.failure.code, extra=about)
                for peer in ring.failure.suspects:
                    self.book.failed(peer, ring.failure.code, time.monotonic())


class Ring:
    """One open session over a route. Forwards go to the first hop; replies come from the last one, in order.

    `failure` is what ended it, if a hop did.
    """

    def __init__(self, session: bytes, peers: Peers, route: Sequence[RouteHop], terms: Terms) -> None:
        self.session = session
        self._peers = peers
        self._route = route
        self._terms = terms
        self._links: list[Connection | None] = [None] * len(route)
        self._acks: list[asyncio.Future[SessionAck]] = []
        self._rules: EntrySession | None = None
        self._replies: deque[Token | Hidden] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.failure: HopError | None = None
        self.waiting_since: float | None = None
        self.max_rows = 0
        self.context = 0

    async def start(self) -> None:
        """Reach every hop, then open the session on all of them at once.

        Hops are reached first, so that a dead one is not blamed on the hop before it, which dials it too.
        """
        loop = asyncio.get_running_loop()
        self._acks = [loop.create_future() for _ in self._route]
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await asyncio.gather(*map(self._reach, range(len(self._route))))
                for index in range(len(self._route)):
                    self._init(index)
                acks = await asyncio.gather(*self._acks)
        except TimeoutError:
            raise self._fail(self._late(), Code.TIMEOUT, f"no answer within {OPEN_SECONDS:g} s") from None
        if self.failure is not None:
            # A hop that had acknowledged failed while the others still opened.
            raise self.failure
        self.max_rows = min(ack.max_rows for ack in acks)
        self.context = min(ack.context for ack in acks)
        if self._terms.sampling is None and (last := self._links[-1]) is not None:
            last.expect(MAX_HEAD + self.max_rows * self._terms.dtype.row_bytes(self._terms.width))
        self._rules = EntrySession(
            self.session,
            self._route[-1].peer,
            dtype=self._terms.dtype,
            width=self._terms.width,
            vocabulary=self._terms.vocabulary,
            keeps_head=self._terms.sampling is None,
            max_rows=self.max_rows,
            window=min(ack.window for ack in acks),
            context=self.context,
        )

    async def room(self) -> None:
        """Return once the window has room for a forward; raises the HopError that ended the session, if one did."""
        assert self._rules is not None
        while not self._rules.has_room:
            await self._until_woken()

    def send(self, state: HiddenState, sample_from: int | None) -> None:
        """Put the next rows into the ring, whose window has room for them."""
        rules, link = self._rules, self._links[0]
        assert rules is not None
        assert link is not None
        link.send(rules.forward(state, sample_from=sample_from))

    async def reply(self) -> Token | Hidden:
        """The next reply of the last hop; raises the HopError that ended the session, if one did."""
        while not self._replies:
            await self._until_woken()
        return self._replies.popleft()

    def close(self) -> None:
        """Tell every hop that was asked that the session is over."""
        for link in {link for link in self._links if link is not None}:
            link.send(SessionClose(self.session))
        for ack in self._acks:
            ack.cancel()

    def on_message(self, link: Connection, message: Message) -> None:
        """An answer from a hop; one from anybody else counts for nothing."""
        if link not in self._links:
            return
        index = self._links.index(link)
        match message:
            case Token() | Hidden() if self._rules is not None:
                try:
                    self._rules.accept(message, link.peer)
                except PeerError as error:
                    self._fail(index, error.code, str(error))
                else:
                    self._replies.append(message)
                    self._wake()
            case SessionAck() if not self._acks[index].done():
                self._acks[index].set_result(message)
            case AbortSession(_, code, reason):
                self._fail(index, code, reason)

    def uses(self, link: Connection) -> bool:
        """Whether a hop of this ring is reached over this link."""
        return link in self._links

    def on_lost(self, link: Connection) -> None:
        """A link broke; if it was one of ours the session is over."""
        if link in self._links:
            self._fail(self._links.index(link), Code.CLOSED, "the connection was lost")

    def give_up(self, reason: str) -> None:
        """End the session for want of an answer. Who is to blame is unknown: the last hop is named, all are suspect."""
        self._fail(len(self._route) - 1, Code.TIMEOUT, reason, [hop.peer for hop in self._route])

    def refuse(self, code: Code, reason: str) -> HopError:
        """End the session because what the last hop sent is of no use; returns what to raise."""
        return self._fail(len(self._route) - 1, code, reason)

    def _late(self) -> int:
        """Which hop an opening that takes too long waits for: the first unreached, else the first that is silent."""
        unreached = [index for index, link in enumerate(self._links) if link is None]
        silent = [index for index, ack in enumerate(self._acks) if ack.cancelled() or not ack.done()]
        return (unreached or silent or [len(self._route) - 1])[0]

    def _fail(self, index: int, code: Code, reason: str, suspects: Sequence[PeerId] = ()) -> HopError:
        """The session is over; of several failures the first one counts, and is returned."""
        self.failure = self.failure or HopError(code, self._route[index], reason, suspects)
        for ack in self._acks:
            if not ack.done():
                ack.set_exception(self.failure)
                # It is raised once; asyncio would complain about the others.
                ack.exception()
        self._wake()
        return self.failure

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _until_woken(self) -> None:
        if self.failure is not None:
            raise self.failure
        assert self._waiter is None, "a chain pushes and pulls in one task"
        self._waiter = asyncio.get_running_loop().create_future()
        self.waiting_since = time.monotonic()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.waiting_since = None

    async def _reach(self, index: int) -> None:
        hop = self._route[index]
        try:
            self._links[index] = await self._peers.connect(hop.peer, hop.addresses)
        except PeerError as error:
            raise self._fail(index, error.code, str(error)) from None

    def _init(self, index: int) -> None:
        route, terms, link = self._route, self._terms, self._links[index]
        assert link is not None
        after = route[index + 1] if index + 1 < len(route) else None
        link.send(
            SessionInit(
                self.session,
                terms.model,
                route[index].layers,
                terms.dtype,
                terms.context,
                prev=route[index - 1].peer if index else self._peers.own,
                next=None if after is None else NextHop(after.peer, after.addresses),
                sampling=terms.sampling if after is None else None,
            )
        )
