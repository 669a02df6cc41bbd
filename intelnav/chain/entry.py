"""The entry of a chain: a prompt becomes tokens, tokens run through the stages, and text comes out."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from intelnav.chain.figures import EntryFigures
from intelnav.chain.interface import Answer, Ending, FinishReason, Piece, Request, ServedModel, Timing
from intelnav.chain.preview import preview
from intelnav.chain.ring import HopError, Ring, Rings, Terms
from intelnav.chain.route import RouteHop, plan_route
from intelnav.chain.stages import Chain, LocalStage, sequence_of
from intelnav.chain.text import TextStream
from intelnav.domain.advert import Advert
from intelnav.domain.errors import Code, ConfigError, EngineError, IntelNavError, PeerError
from intelnav.domain.hidden import Dtype
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceEngine

# Context that a hop must have left for the answer if the request sets no limit.
ANSWER_TOKENS = 256
# After so many hops that refused, or so many seconds, an opening is given up. An attempt takes 15 s at most.
OPENINGS = 16
OPENING_SECONDS = 45.0


class Discovery(Protocol):
    """Finds who serves a model: the peers of the config file now, the DHT later."""

    async def providers(self, model: str) -> list[Advert]:
        """Adverts for the model with this CID."""
        ...


@dataclass(frozen=True, slots=True)
class EntryModel:
    """A model that this node answers for.

    `cid` gives the model's id, `front` and `head` the engine that is loaded right now, or they raise EngineError: the
    model may still be on its way, and a worker may have been replaced since; PeerError while it is draining. `head` is
    given if the entry keeps norm, head and sampling; it runs the model's last layer.
    """

    cid: Callable[[], str]
    name: str
    dtype: Dtype
    front: Callable[[], SliceEngine]
    head: Callable[[], SliceEngine] | None


class Entry:
    """Answers requests over chains that it plans from `discovery`. Implements `Completer`.

    `serves` can be set to other models at any time; answers under way go on.
    """

    def __init__(self, own: PeerId, models: Sequence[EntryModel], discovery: Discovery, rings: Rings) -> None:
        self.serves = models
        self._own = own
        self._closed = ""
        self._running = 0
        self._opening: set[object] = set()
        self._discovery = discovery
        self._rings = rings
        self.figures = EntryFigures()

    def __len__(self) -> int:
        """How many answers are under way."""
        return self._running

    @property
    def opening(self) -> int:
        """How many of them hold no sequence of their front yet, so that nothing tells that it is in use."""
        return len(self._opening)

    def close(self, reason: str) -> None:
        """Refuse new questions from now on, with PeerError `draining`; answers under way go on."""
        self._closed = reason

    def models(self) -> list[ServedModel]:
        """The models whose front is loaded right now."""
        served = []
        for model in self.serves:
            try:
                served.append(ServedModel(model.cid(), model.name, model.front().info.context))
            except (EngineError, PeerError):
                continue
        return served

    @asynccontextmanager
    async def answer(self, request: Request) -> AsyncIterator[Answer]:
        """Run a generation; see `Completer.answer`."""
        if self._closed:
            raise PeerError(Code.DRAINING, self._closed)
        started = time.perf_counter()
        figures = self.figures
        figures.answers += 1
        self._running += 1
        opening = object()
        self._opening.add(opening)
        try:
            model = self._find(request.model)
            cid, front = model.cid(), model.front()
            async with AsyncExitStack() as stack:
                chain, prompt = await self._open(stack, model, front, request)
                self._opening.discard(opening)
                stack.callback(self._learn, cid, chain)
                yield await stack.enter_async_context(
                    aclosing(_generate(chain, front, prompt, request, started, figures))
                )
        except IntelNavError as error:
            figures.failures[error.code] += 1
            raise
        finally:
            self._opening.discard(opening)
            self._running -= 1

    async def preview(self, name: str, count: int = 1) -> dict[str, Any]:
        """The chains that a request for this model would take now; see `preview.preview`.

        Raises ConfigError for an unknown model, EngineError if its front is not loaded.
        """
        model = self._find(name)
        layers = _elsewhere(model.front(), None if model.head is None else model.head())
        adverts = [] if layers is None else await self._discovery.providers(model.cid())
        adverts = [advert for advert in adverts if advert.peer != self._own]
        return preview(adverts, layers, count, self._rings.book.estimates(model.cid(), time.monotonic()))

    def _find(self, name: str) -> EntryModel:
        for model in self.serves:
            if name == model.name:
                return model
            with suppress(EngineError):
                if name == model.cid():
                    return model
        known = ", ".join(model.name for model in self.serves) or "none: the config names no entry"
        raise ConfigError(f"model {name[:80]!r} is not served here; served: {known}")

    async def _open(
        self,
        stack: AsyncExitStack,
        model: EntryModel,
        front: SliceEngine,
        request: Request,
    ) -> tuple[Chain, list[int]]:
        """Take sequences at home, then open a ring around the peers that refuse; with the prompt's tokens.

        Who is refused for want of a sequence has cost no work on his prompt, however long it is.
        """
        # A front that reaches to the end of the model has the head anyway.
        head = None if model.head is None or front.info.is_tail else model.head()
        at_home = front.info.is_tail and head is None
        first = LocalStage(
            front,
            await stack.enter_async_context(sequence_of(front, request.sampling if at_home else None)),
            front.info.layers,
        )
        last = None
        if head is not None:
            sequence = await stack.enter_async_context(sequence_of(head, request.sampling))
            last = LocalStage(head, sequence, head.info.layers)
        prompt = await _tokens(front, request)
        route: tuple[RouteHop, ...] = ()
        ring = None
        if (layers := _elsewhere(front, head)) is not None:
            terms = Terms(
                model.cid(),
                model.dtype,
                front.info.width,
                front.info.vocabulary,
                min(front.info.context, len(prompt) + (request.max_tokens or ANSWER_TOKENS)),
                request.sampling if head is None else None,
            )
            route, ring = await self._open_ring(stack, layers, terms)
        return Chain(self._own, first, route, ring, last, model.dtype), prompt

    async def _open_ring(
        self, stack: AsyncExitStack, layers: LayerRange, terms: Terms
    ) -> tuple[tuple[RouteHop, ...], Ring]:
        """Open the cheapest chain. A hop that refuses is replaced, or the chain is planned anew without it."""
        adverts = await self._discovery.providers(terms.model)
        started = time.monotonic()
        expect = self._rings.book.estimates(terms.model, started)
        avoid = {self._own}
        refusals: list[HopError] = []
        route = plan_route(adverts, layers, avoid, expect)
        while True:
            try:
                return route.hops, await stack.enter_async_context(self._rings.open(route.hops, terms))
            except HopError as error:
                refusals.append(error)
                avoid.add(error.peer)
            if len(refusals) == OPENINGS or time.monotonic() - started > OPENING_SECONDS:
                raise _refused(f"no chain over layers {layers} could be opened", refusals)
            try:
                route = route.replacing(refusals[-1].peer, avoid) or plan_route(
                    adverts, layers, avoid, expect
                )
            except PeerError as error:
                raise _refused(str(error), refusals) from None

    def _learn(self, model: str, chain: Chain) -> None:
        """Note how long each hop says that it took for a token."""
        now = time.monotonic()
        for report in chain.reports():
            if (peer := PeerId.parse(report.peer)) != self._own:
                self._rings.book.computed(peer, model, report.milliseconds, len(report.layers), now)


def _elsewhere(front: SliceEngine, head: SliceEngine | None) -> LayerRange | None:
    """The layers that other peers have to run."""
    end = front.info.blocks if head is None else head.info.layers.start
    return LayerRange(front.info.layers.end, end) if front.info.layers.end < end else None


def _refused(problem: str, refusals: Sequence[HopError]) -> PeerError:
    codes = {refusal.code for refusal in refusals}
    # A hop's `bad_request` is no fault of whoever asked, which is what the code would say here.
    code = codes.pop() if len(codes) == 1 and Code.BAD_REQUEST not in codes else Code.BUSY
    return PeerError(code, f"{problem}; refused: {'; '.join(map(str, refusals))}")


async def _tokens(front: SliceEngine, request: Request) -> list[int]:
    if request.messages is None:
        prompt = await front.tokenize(request.prompt or "", special=True)
    else:
        prompt = await front.tokenize(await front.render(list(request.messages)), special=True)
    if not prompt:
        raise PeerError(Code.BAD_REQUEST, "the prompt is empty: give at least one token to go on from")
    if len(prompt) >= front.info.context:
        raise PeerError(
            Code.TOO_LONG,
            f"the prompt has {len(prompt)} tokens, the context is {front.info.context}: shorten it, "
            "or raise limits.context on every node of the chain",
        )
    return prompt


async def _generate(
    chain: Chain,
    front: SliceEngine,
    prompt: Sequence[int],
    request: Request,
    started: float,
    figures: EntryFigures,
) -> AsyncGenerator[Piece | Ending]:
    """The decode loop. A token is on its way before anything else is made of it, unless its text may end the answer."""
    opened = time.perf_counter()
    limit = min(request.max_tokens or chain.context, chain.context - len(prompt))
    text = TextStream(request.stop)
    reason: FinishReason = "stop"
    token: int | None = await chain.prefill(prompt)
    first = last = time.perf_counter()
    figures.prefill.add(first - opened)
    count = 0
    while token is not None and token not in front.info.end_tokens:
        count += 1
        before, last = last, time.perf_counter()
        shown = text.feed(front.piece(token)) if request.stop else None
        goes_on = count < limit and not text.stopped
        if goes_on:
            await chain.push((token,))
        figures.tokens += 1
        if count > 1:
            figures.decode.add(last - before)
        yield Piece(text.feed(front.piece(token)) if shown is None else shown, (token,))
        if not goes_on:
            reason = "stop" if text.stopped else "length"
            break
        token = await chain.pull()
    if rest := text.finish():
        yield Piece(rest, ())
    rate = (count - 1) / (last - first) if count > 1 else 0.0
    timing = Timing(opened - started, first - started, time.perf_counter() - started, rate)
    yield Ending(reason, len(prompt), count, chain.reports(), timing)
