"""An entry without a chain: its answers follow from the request by counting, and it can be held or broken."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from intelnav.chain.interface import (
    Answer,
    Ending,
    FinishReason,
    HopReport,
    Piece,
    Request,
    ServedModel,
    Timing,
)
from intelnav.domain.errors import ConfigError, IntelNavError
from intelnav.domain.slice import LayerRange

MODEL = ServedModel(id="b3-counting", name="counting", context=4096)
CHAIN = (
    HopReport("peer-a", LayerRange(0, 8), 1.5),
    HopReport("peer-b", LayerRange(8, 30), 2.5),
)
TIMING = Timing(open=0.25, first_token=0.5, total=1.0, tokens_per_second=8.0)


@dataclass
class CountingCompleter:
    """Answers `0 1 2 ...`, one number a token, whose id is ten times the number.

    `fail_open` is raised before the answer, `fail_after` in place of the token of that number. A token whose
    number is in `holds` comes only when its event is set. `size` pads every token's text with spaces.
    """

    length: int = 4
    size: int = 0
    fail_open: Exception | None = None
    fail_after: tuple[int, IntelNavError] | None = None
    holds: dict[int, anyio.Event] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    given: int = 0
    open: int = 0
    opened: anyio.Event = field(default_factory=anyio.Event)
    closed: anyio.Event = field(default_factory=anyio.Event)

    def models(self) -> list[ServedModel]:
        return [MODEL]

    @asynccontextmanager
    async def answer(self, request: Request) -> AsyncIterator[Answer]:
        self.requests.append(request)
        if request.model not in (MODEL.id, MODEL.name):
            raise ConfigError(f"no model {request.model!r} here; this node serves {MODEL.name}")
        if self.fail_open is not None:
            raise self.fail_open
        self.open += 1
        self.opened.set()
        try:
            # As in a chain, tasks run during the answer: leaving the context from another task fails.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                yield self._count(request)
                tasks.cancel_scope.cancel()
        finally:
            self.open -= 1
            self.closed.set()

    async def _count(self, request: Request) -> Answer:
        limit = self.length if request.max_tokens is None else min(self.length, request.max_tokens)
        for number in range(limit):
            if number in self.holds:
                await self.holds[number].wait()
            if self.fail_after is not None and self.fail_after[0] == number:
                raise self.fail_after[1]
            await anyio.lowlevel.checkpoint()
            self.given += 1
            yield Piece(f"{number} " + " " * self.size, (10 * number,))
        reason: FinishReason = "length" if limit < self.length else "stop"
        yield Ending(reason, prompt_tokens=7, tokens=limit, chain=CHAIN, timing=TIMING)
