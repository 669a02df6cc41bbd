"""The stages of one open chain, as its entry sees them: tokens in at the front, tokens out at the end.

Front layers run here, the ring runs elsewhere, and the head runs here again if the entry keeps it. Ring and head may
both be missing: a node that holds the whole model is a chain of one.
"""

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from intelnav.chain.interface import HopReport
from intelnav.chain.ring import Ring
from intelnav.chain.route import RouteHop
from intelnav.domain.errors import PeerError
from intelnav.domain.hidden import Dtype
from intelnav.domain.identity import PeerId
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.encoding.cbor import MAX_HEAD
from intelnav.engine.interface import Forward, Output, SliceEngine
from intelnav.wire.codec import MAX_MESSAGE
from intelnav.wire.messages import Hidden, Token


@asynccontextmanager
async def sequence_of(engine: SliceEngine, sampling: Sampling | None) -> AsyncIterator[int]:
    """A sequence of a local engine, given back on the way out even when cancelled."""
    sequence = await engine.open(sampling)
    try:
        yield sequence
    finally:
        engine.close(sequence)


@dataclass(frozen=True, slots=True)
class LocalStage:
    """A slice of this node with the sequence that one generation uses; `layers` are those that it runs."""

    engine: SliceEngine
    sequence: int
    layers: LayerRange
    micros: list[int] = field(default_factory=list)

    async def forward(self, forward: Forward, hand_on: Callable[[Output], None] | None = None) -> Output:
        """Run the rows, hand them on as `SliceEngine.forward` says, and note how long this stage kept them."""
        started = time.perf_counter()
        output = await self.engine.forward(forward, hand_on)
        self.micros.append(round((time.perf_counter() - started) * 1e6))
        return output


class Chain:
    """Feeds tokens through the stages, for one task. Pushes may run ahead of pulls, so that all hops are busy."""

    def __init__(
        self,
        own: PeerId,
        front: LocalStage,
        route: Sequence[RouteHop],
        ring: Ring | None,
        head: LocalStage | None,
        dtype: Dtype,
    ) -> None:
        self._own = own
        self._front = front
        self._route = route
        self._ring = ring
        self._head = head
        self._dtype = dtype if ring is not None else Dtype.F32
        self._local: deque[tuple[int, int | None, Output]] = deque()
        self._asked: deque[int | None] = deque()
        self._spent: list[tuple[int, ...]] = []
        self._position = 0
        parts = [stage.engine.info for stage in (front, head) if stage is not None]
        self.max_rows = min(part.max_rows for part in parts)
        self.context = min(part.context for part in parts)
        if ring is not None:
            row_bytes = self._dtype.row_bytes(front.engine.info.width)
            self.max_rows = min(self.max_rows, ring.max_rows, (MAX_MESSAGE - MAX_HEAD) // row_bytes)
            self.context = min(self.context, ring.context)

    async def prefill(self, prompt: Sequence[int]) -> int:
        """Run a prompt of one or more tokens, in micro-batches that follow each other; returns the first new token."""
        starts = range(0, len(prompt), self.max_rows)
        for start in starts:
            part = tuple(prompt[start : start + self.max_rows])
            await self.push(part, sample=start == starts[-1])
        for _ in starts[:-1]:
            await self.pull()
        token = await self.pull()
        assert token is not None
        self._forget_prefill()
        return token

    async def push(self, tokens: tuple[int, ...], *, sample: bool = True) -> None:
        """Run `tokens` through the front and hand them on; returns once they are on their way."""
        position, self._position = self._position, self._position + len(tokens)
        sample_from = len(tokens) - 1 if sample else None
        at_home = self._ring is None and self._head is None
        forward = Forward(
            self._front.sequence,
            position,
            stop=self._front.layers.end,
            tokens=tokens,
            sample_from=sample_from if at_home else None,
            reply=None if at_home else self._dtype,
        )
        if self._ring is None:
            self._local.append((position, sample_from, await self._front.forward(forward)))
            return
        await self._ring.room()
        await self._front.forward(forward, partial(self._hand_on, self._ring, sample_from))

    def _hand_on(self, ring: Ring, sample_from: int | None, output: Output) -> None:
        assert output.hidden is not None
        self._asked.append(sample_from)
        ring.send(output.hidden, sample_from)

    async def pull(self) -> int | None:
        """Take the result of the oldest push: its token, or None if it asked for no sample."""
        if self._ring is None:
            position, sample_from, output = self._local.popleft()
        else:
            reply, sample_from = await self._ring.reply(), self._asked.popleft()
            self._spent.append(reply.spent)
            position = reply.position
            match reply:
                case Token(tokens=tokens):
                    output = Output(tokens=tokens)
                case Hidden(state=state):
                    output = Output(hidden=state)
        if self._head is not None:
            forward = Forward(
                self._head.sequence,
                position,
                stop=self._head.layers.end,
                hidden=output.hidden,
                sample_from=sample_from,
            )
            try:
                output = await self._head.forward(forward)
            except PeerError as error:
                if self._ring is None:
                    raise
                # What the head refuses came from the last hop.
                raise self._ring.refuse(error.code, str(error)) from None
        return output.tokens[0] if output.tokens else None

    def reports(self) -> tuple[HopReport, ...]:
        """Each stage with the median time that it kept a token; what peers say of themselves is not verified."""
        me = str(self._own)
        hops = [HopReport(me, self._front.layers, _milliseconds(self._front.micros))]
        for index, hop in enumerate(self._route):
            spent = [each[index] for each in self._spent if len(each) > index]
            hops.append(HopReport(str(hop.peer), hop.layers, _milliseconds(spent)))
        if self._head is not None:
            hops.append(HopReport(me, self._head.layers, _milliseconds(self._head.micros)))
        return tuple(hops)

    def _forget_prefill(self) -> None:
        """A token's time is what the reports are about; a prompt's rows would hide it."""
        self._spent.clear()
        for stage in (self._front, self._head):
            if stage is not None:
                stage.micros.clear()


def _milliseconds(micros: Sequence[int]) -> float:
    return round(median(micros) / 1000, 3) if micros else 0.0
