"""Serving a part of other people's chains: sessions opened by an entry, forwards from `prev`, results to `next`."""

import logging
import time
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from intelnav.chain.contribution import Contribution
from intelnav.chain.figures import HopFigures
from intelnav.chain.served import Hosting, Running, Served, Session, engine_for
from intelnav.domain.errors import Code, EngineError, IntelNavError, PeerError
from intelnav.engine.interface import Forward, Output, SliceEngine
from intelnav.net.connection import Connection
from intelnav.net.peers import Peers
from intelnav.wire.messages import (
    AbortSession,
    ForwardHidden,
    Hidden,
    Message,
    SessionAck,
    SessionClose,
    SessionInit,
    Token,
)
from intelnav.wire.session import HopSession

log = logging.getLogger(__name__)

# Forwards of one session under way at a hop: enough to keep every stage of a long chain busy during a prefill.
WINDOW = 8


class HopService:
    """Answers session and forward messages for the slices in `hosting`; sessions share nothing but compute.

    Only the opening of a session is a task, run in `tasks`: a forward goes from link to engine to link by calls alone,
    since on this path each task switch is a delay for every token. A session ends when the entry closes it, when any of
    its links is lost, when a message breaks the rules, when the engine fails, or after `idle_seconds` without a
    forward; the other peers of the session are told each time. `contribution` says whose sessions are opened; without
    one everybody's are.
    """

    def __init__(
        self,
        peers: Peers,
        hosting: Hosting,
        tasks: TaskGroup,
        *,
        idle_seconds: float,
        contribution: Contribution | None = None,
    ) -> None:
        """`idle_seconds` and `contribution` can be set to something else at any time."""
        self.idle_seconds = idle_seconds
        self.contribution = contribution
        self._peers = peers
        self._hosting = hosting
        self._tasks = tasks
        self._sessions: dict[bytes, Session] = {}
        self._draining = False
        self.figures = HopFigures()

    def __len__(self) -> int:
        return len(self._sessions)

    def forward(self, link: Connection, forward: ForwardHidden) -> None:
        """Take a forward from a peer. Never raises for what a peer does: the offender's session ends instead."""
        arrived = time.perf_counter()
        session = self._sessions.get(forward.session)
        if session is None or session.served is None:
            link.send(AbortSession(forward.session, Code.CLOSED, "no such session is open"))
            return
        if link is not session.prev and link.peer != session.init.prev:
            # An outsider's forward must not end a session that is not its own.
            link.send(AbortSession(forward.session, Code.BAD_REQUEST, "this session has another prev"))
            return
        served, init = session.served, session.init
        try:
            served.rules.admit(forward, link.peer)
        except PeerError as error:
            self._end(session, error.code, str(error))
            return
        samples = init.sampling is not None
        served.engine.submit(
            Forward(
                served.sequence,
                forward.position,
                init.layers.end,
                (),
                forward.state,
                forward.kv_truncate_to,
                forward.sample_from if samples else None,
                None if samples else init.dtype,
            ),
            partial(self._computed, session, forward, arrived),
        )
        session.prev = link
        session.last_used = time.monotonic()

    def on_message(self, link: Connection, message: Message) -> None:
        """Take any other message. Never raises for what a peer does either: the offender's session ends instead."""
        match message:
            case SessionInit():
                self._init(link, message)
            case SessionClose() | AbortSession():
                self._ended_by(link, message)
            case _:
                raise AssertionError(f"{type(message).__name__} is not for a hop")

    def on_open(self, link: Connection) -> None:
        """Make room for what this peer may send in sessions that are open already."""
        for session in self._sessions.values():
            if session.init.prev == link.peer:
                link.expect(session.expects())

    def on_lost(self, link: Connection) -> None:
        """End the sessions that used this link."""
        for session in list(self._sessions.values()):
            if session.depends_on(link) and not self._is_replaced(session, link):
                self._end(session, Code.CLOSED, f"the link to {link.peer.short} was lost", told_by=link)

    def uses(self, link: Connection) -> bool:
        """Whether an open session depends on this link."""
        return any(session.depends_on(link) for session in self._sessions.values())

    def running(self, engine: SliceEngine) -> list[Running]:
        """The sessions that are open in an engine, the oldest first."""
        now = time.monotonic()
        return [session.running(now) for session in self._in(engine)]

    def refuse_all(self) -> None:
        """Open no more sessions; those that are open go on."""
        self._draining = True

    def end_in(self, engine: SliceEngine, reason: str) -> None:
        """End the sessions that are open in an engine, which is draining."""
        for session in self._in(engine):
            self._end(session, Code.DRAINING, reason)

    def end_all(self, reason: str) -> None:
        """Refuse new sessions from now on and end the open ones."""
        self.refuse_all()
        for session in list(self._sessions.values()):
            self._end(session, Code.DRAINING, reason)

    async def watch_idle(self) -> None:
        """End sessions that nobody uses any more; runs until cancelled."""
        while True:
            await anyio.sleep(min(1.0, self.idle_seconds / 4))
            before = time.monotonic() - self.idle_seconds
            for session in list(self._sessions.values()):
                if session.last_used < before:
                    self._end(session, Code.TIMEOUT, f"idle for {self.idle_seconds:g} s")

    def _is_replaced(self, session: Session, link: Connection) -> bool:
        """Whether a lost link is one of several to `prev`, which has used none of them yet."""
        others = (each for each in self._peers.links() if each is not link and each.alive)
        return link not in session.links() and any(each.peer == link.peer for each in others)

    def _in(self, engine: SliceEngine) -> list[Session]:
        sessions = self._sessions.values()
        return [each for each in sessions if each.served is not None and each.served.engine is engine]

    def _init(self, link: Connection, init: SessionInit) -> None:
        if init.session in self._sessions:
            link.send(AbortSession(init.session, Code.BAD_REQUEST, "this session is open already"))
            return
        session = Session(init, link, prev=link if link.peer == init.prev else None)
        self._sessions[init.session] = session
        self._tasks.start_soon(self._open, session)

    async def _open(self, session: Session) -> None:
        """Reserve a sequence, reach the next hop, acknowledge. A session that ends meanwhile leaves nothing behind."""
        init = session.init
        try:
            with session.opening:
                engine = self._engine_for(session)
                if self.contribution is not None:
                    await self.contribution.check(session.entry.peer, session.entry.host)
                    # It may have begun to drain meanwhile.
                    engine = self._engine_for(session)
                sequence = await engine.open(init.sampling)
                try:
                    if init.next is not None:
                        session.next = await self._peers.connect(
                            init.next.peer, init.next.addresses, teller=session.entry.host
                        )
                except BaseException:
                    engine.close(sequence)
                    raise
                if self._sessions.get(init.session) is not session:
                    # It ended in the very turn in which the last answer came: too late to be cancelled.
                    engine.close(sequence)
                    return
                info = engine.info
                rules = HopSession(
                    init, width=info.width, max_rows=info.max_rows, window=WINDOW, context=info.context
                )
                session.served = Served(rules, engine, sequence)
                for link in self._peers.links():
                    if link.peer == init.prev:
                        link.expect(session.expects())
                self.figures.opened += 1
                log.debug("a session is open", extra=_about(session))
                session.entry.send(
                    SessionAck(init.session, info.engine_class, info.max_rows, WINDOW, info.context)
                )
        except (PeerError, EngineError) as error:
            self._end(session, Code(error.code), str(error))

    def _engine_for(self, session: Session) -> SliceEngine:
        if self._draining:
            raise PeerError(Code.DRAINING, "this node is leaving")
        return engine_for(session.init, self._hosting, entry=session.entry.peer, me=self._peers.own)

    def _computed(
        self, session: Session, forward: ForwardHidden, arrived: float, outcome: Output | IntelNavError
    ) -> None:
        """Send on what the engine made of a forward, unless the session has ended meanwhile."""
        init = session.init
        if self._sessions.get(init.session) is not session or session.served is None:
            return
        if isinstance(outcome, IntelNavError):
            self._end(session, Code(outcome.code), str(outcome))
            return
        seconds = time.perf_counter() - arrived
        spent = (*forward.spent, round(seconds * 1e6))
        (session.next or session.entry).send(_result(init, forward, outcome, spent))
        # What remains does not keep the next hop waiting.
        session.served.rules.done()
        session.last_used = time.monotonic()
        figures = self.figures
        figures.forwards += 1
        figures.rows += forward.state.rows
        figures.compute.add(seconds)

    def _ended_by(self, link: Connection, message: SessionClose | AbortSession) -> None:
        session = self._sessions.get(message.session)
        if session is None:
            return
        match message:
            case SessionClose() if link is session.entry:
                self._forget(session)
                log.debug("a session is closed", extra=_about(session))
            case AbortSession(_, code, reason) if session.depends_on(link):
                # Who hears of it from us is told whom we have it from: the entry may hear us first.
                self._end(session, code, f"peer {link.peer.short}: {reason}", told_by=link)

    def _end(self, session: Session, code: Code, reason: str, *, told_by: Connection | None = None) -> None:
        """End a session for a reason that its peers, except the one that gave it, must hear.

        The entry hears first, so that it does not take a neighbour that passes the reason on for the one to blame.
        """
        if self._forget(session):
            self.figures.ended[code] += 1
            # A peer's own words are left out: it knows tokens or activations, and could put them there.
            why = reason if told_by is None else "a peer's end of it"
            # Anybody can ask and be refused, as often as they like; that is counted, and fills no log.
            level = logging.DEBUG if session.served is None else logging.INFO
            log.log(level, "a session ends, %s: %s", code, why, extra=_about(session))
            for link in sorted(session.links() - {told_by}, key=lambda link: link is not session.entry):
                link.send(AbortSession(session.init.session, code, reason))

    def _forget(self, session: Session) -> bool:
        if self._sessions.get(session.init.session) is not session:
            return False
        del self._sessions[session.init.session]
        session.opening.cancel()
        if session.served is not None:
            session.served.engine.close(session.served.sequence)
        return True


def _about(session: Session) -> dict[str, Any]:
    """What a log line about a session is about."""
    init = session.init
    return {
        "session": init.session,
        "model": init.model,
        "layers": init.layers,
        "peer": session.entry.peer,
    }


def _result(init: SessionInit, forward: ForwardHidden, output: Output, spent: tuple[int, ...]) -> Message:
    """What goes on: activations to the next hop, or the last hop's answer to the entry."""
    if init.sampling is not None:
        return Token(init.session, forward.seq, forward.position, output.tokens, spent)
    assert output.hidden is not None
    if init.next is not None:
        return ForwardHidden(
            init.session,
            forward.seq,
            forward.position,
            output.hidden,
            forward.kv_truncate_to,
            forward.sample_from,
            spent,
        )
    return Hidden(init.session, forward.seq, forward.position, output.hidden, spent)
