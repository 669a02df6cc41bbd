"""Serving a part of other people's chains: sessions opened by an entry, forwards from `prev`, results to `next`."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from intelnav.domain.errors import Code, EngineError, PeerError
from intelnav.domain.identity import PeerId
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
from intelnav.wire.session import HopSession, check_init

# Forwards of one session under way at a hop: enough to keep every stage of a long chain busy during a prefill.
WINDOW = 8
DIAL_SECONDS = 10.0


class Hosting(Protocol):
    """The slices that this node has loaded."""

    def ready(self, model: str) -> Sequence[SliceEngine]:
        """Engines of that model that can take sessions now."""
        ...


@dataclass(eq=False, slots=True)
class _Session:
    """One session: its rules, its sequence in the engine and the links that it lives on."""

    init: SessionInit
    entry: Connection
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    queue: asyncio.Queue[tuple[ForwardHidden, float]] = field(default_factory=asyncio.Queue)
    rules: HopSession | None = None
    prev: Connection | None = None
    next: Connection | None = None
    last_used: float = field(default_factory=time.monotonic)

    def links(self) -> set[Connection]:
        """Every connection that this session depends on."""
        return {link for link in (self.entry, self.prev, self.next) if link is not None}


class HopService:
    """Answers session and forward messages for the slices in `hosting`; sessions never share anything but compute.

    `tasks` runs one task per session. A session ends when the entry closes it, when any of its links is lost, when
    a message breaks the rules, when the engine fails, or after `idle_seconds` without a forward; the other peers of
    the session are told each time.
    """

    def __init__(self, peers: Peers, hosting: Hosting, tasks: TaskGroup, *, idle_seconds: float) -> None:
        self._peers = peers
        self._hosting = hosting
        self._tasks = tasks
        self._idle_seconds = idle_seconds
        self._sessions: dict[bytes, _Session] = {}
        self.draining = False

    def __len__(self) -> int:
        return len(self._sessions)

    def on_message(self, link: Connection, message: Message) -> None:
        """Take a message from a peer. Never raises for what a peer does: the offender's session ends instead."""
        match message:
            case ForwardHidden():
                self._forward(link, message)
            case SessionInit():
                self._init(link, message)
            case SessionClose() | AbortSession():
                self._ended_by(link, message)
            case _:
                raise AssertionError(f"{type(message).__name__} is not for a hop")

    def on_lost(self, link: Connection) -> None:
        """End the sessions that used this link."""
        for session in list(self._sessions.values()):
            if link in session.links():
                self._end(session, Code.CLOSED, f"the link to {link.peer.short} was lost", gone=link)

    def end_all(self, reason: str) -> None:
        """Refuse new sessions from now on and end the open ones."""
        self.draining = True
        for session in list(self._sessions.values()):
            self._end(session, Code.DRAINING, reason)

    async def watch_idle(self) -> None:
        """End sessions that nobody uses any more; runs until cancelled."""
        while True:
            await anyio.sleep(min(1.0, self._idle_seconds / 4))
            before = time.monotonic() - self._idle_seconds
            for session in list(self._sessions.values()):
                if session.last_used < before:
                    self._end(session, Code.TIMEOUT, f"idle for {self._idle_seconds:g} s")

    def _init(self, link: Connection, init: SessionInit) -> None:
        if init.session in self._sessions:
            link.send(AbortSession(init.session, Code.BAD_REQUEST, "this session is open already"))
            return
        self._sessions[init.session] = session = _Session(init, link)
        self._tasks.start_soon(self._run, session)

    def _forward(self, link: Connection, forward: ForwardHidden) -> None:
        session = self._sessions.get(forward.session)
        if session is None or session.rules is None:
            link.send(AbortSession(forward.session, Code.CLOSED, "no such session is open"))
            return
        if link.peer != session.init.prev:
            # An outsider's forward must not end a session that is not its own.
            link.send(AbortSession(forward.session, Code.BAD_REQUEST, "this session has another prev"))
            return
        try:
            session.rules.admit(forward, link.peer)
        except PeerError as error:
            self._end(session, error.code, str(error))
            return
        session.prev = link
        session.last_used = time.monotonic()
        session.queue.put_nowait((forward, time.perf_counter()))

    def _ended_by(self, link: Connection, message: SessionClose | AbortSession) -> None:
        session = self._sessions.get(message.session)
        if session is None:
            return
        if link is session.entry or (
            isinstance(message, AbortSession) and link.peer in (session.init.prev, _next_peer(session.init))
        ):
            code, reason = (
                (message.code, message.reason)
                if isinstance(message, AbortSession)
                else (Code.CLOSED, "the entry closed the session")
            )
            self._end(session, code, reason, gone=link, quiet=isinstance(message, SessionClose))

    def _end(
        self,
        session: _Session,
        code: Code,
        reason: str,
        *,
        gone: Connection | None = None,
        quiet: bool = False,
    ) -> None:
        if self._sessions.pop(session.init.session, None) is None:
            return
        session.scope.cancel()
        if not quiet:
            for link in session.links() - {gone}:
                link.send(AbortSession(session.init.session, code, reason))

    async def _run(self, session: _Session) -> None:
        """A session from opening to end; the sequence is given back whatever happens."""
        init = session.init
        engine: SliceEngine | None = None
        sequence: int | None = None
        try:
            with session.scope:
                engine = self._engine_for(session)
                sequence = await engine.open(init.sampling)
                if init.next is not None:
                    with anyio.fail_after(DIAL_SECONDS):
                        session.next = await self._peers.connect(init.next.peer, init.next.addresses)
                info = engine.info
                session.rules = HopSession(
                    init, width=info.width, max_rows=info.max_rows, window=WINDOW, context=info.context
                )
                session.entry.send(
                    SessionAck(init.session, info.engine_class, info.max_rows, WINDOW, info.context)
                )
                await self._serve(session, engine, sequence)
        except (PeerError, EngineError) as error:
            self._end(session, Code(error.code), str(error))
        except TimeoutError:
            self._end(session, Code.TIMEOUT, f"the next hop did not answer within {DIAL_SECONDS:g} s")
        finally:
            self._sessions.pop(init.session, None)
            if engine is not None and sequence is not None:
                with anyio.CancelScope(shield=True):
                    await engine.close(sequence)

    def _engine_for(self, session: _Session) -> SliceEngine:
        if self.draining:
            raise PeerError(Code.DRAINING, "this node is leaving")
        init = session.init
        for engine in self._hosting.ready(init.model):
            if engine.info.layers.start == init.layers.start and engine.info.layers.covers(init.layers):
                check_init(
                    init,
                    entry=session.entry.peer,
                    me=self._peers.own,
                    model=init.model,
                    layers=engine.info.layers,
                    blocks=engine.info.blocks,
                    context=engine.info.context,
                    engine_class=engine.info.engine_class,
                )
                return engine
        raise PeerError(Code.NOT_HOSTING, f"layers {init.layers} of {init.model} are not loaded here")

    async def _serve(self, session: _Session, engine: SliceEngine, sequence: int) -> None:
        init, rules = session.init, session.rules
        assert rules is not None
        samples = init.sampling is not None
        while True:
            forward, arrived = await session.queue.get()
            output = await engine.forward(
                Forward(
                    sequence,
                    forward.position,
                    stop=init.layers.end,
                    hidden=forward.state,
                    truncate_to=forward.kv_truncate_to,
                    sample_from=forward.sample_from if samples else None,
                    reply=None if samples else init.dtype,
                )
            )
            rules.done()
            session.last_used = time.monotonic()
            spent = (*forward.spent, round((time.perf_counter() - arrived) * 1e6))
            target = session.next or session.entry
            target.send(_result(init, forward, output, spent))


def _next_peer(init: SessionInit) -> PeerId | None:
    return init.next.peer if init.next is not None else None


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
