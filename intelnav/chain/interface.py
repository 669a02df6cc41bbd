"""What the API asks of a generation: a prompt in, a stream of text pieces and one ending out."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Request:
    """One question. Exactly one of `messages` (through the chat template) and `prompt` (raw text) is given.

    `max_tokens` None means: as many as the context holds. `stop` strings end the answer and are not part of it.
    """

    model: str
    messages: tuple[dict[str, str], ...] | None = None
    prompt: str | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True)
class HopReport:
    """One stage of the chain: who, which layers, and the median milliseconds per token that it kept a forward."""

    peer: str
    layers: LayerRange
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: until all hops were open, until the first token, and for the whole answer."""

    open: float
    first_token: float
    total: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text, whole characters only (it may be empty), and the tokens that it came from."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """The last item of every answer that was not cut off by an error. Counts are in tokens."""

    reason: FinishReason
    prompt_tokens: int
    tokens: int
    chain: tuple[HopReport, ...]
    timing: Timing


Answer = AsyncIterator[Piece | Ending]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that this node can answer with. `id` is its CID, `name` what people call it."""

    id: str
    name: str
    context: int


class Completer(Protocol):
    """The entry of this node."""

    def models(self) -> list[ServedModel]:
        """Models that can be asked here, in the order of the config."""
        ...

    def answer(self, request: Request) -> AbstractAsyncContextManager[Answer]:
        """Run a generation. Leaving the context early cancels it on every hop.

        Raises ConfigError for an unknown model, PeerError `too_long` for a prompt that does not fit, PeerError or
        EngineError when the chain cannot be built or breaks; an error may also come while iterating.
        """
        ...
