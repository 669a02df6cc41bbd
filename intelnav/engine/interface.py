"""What the rest of the node knows of an engine: one loaded slice that runs forwards for several sessions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from intelnav.domain.errors import IntelNavError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange

Device = Literal["auto", "cpu", "cuda", "vulkan", "metal", "rocm"]


@dataclass(frozen=True, slots=True)
class SliceSpec:
    """What to load, and how much room to give it. `context` is in tokens, per session.

    `gpu_layers` layers go to the GPU, -1 being all; 0 is the same as `device` cpu.
    """

    path: Path
    sessions: int = 8
    context: int = 4096
    max_rows: int = 128
    device: Device = "auto"
    gpu_layers: int = -1
    threads: int = 0


@dataclass(frozen=True, slots=True)
class SliceInfo:
    """A loaded slice, as its worker reports it. Layers count in the whole model; a token's text is bytes."""

    layers: LayerRange
    blocks: int
    architecture: str
    width: int
    vocabulary: int
    context: int
    sessions: int
    max_rows: int
    end_tokens: frozenset[int]
    engine_class: str
    memory: int

    @property
    def is_front(self) -> bool:
        """Owns the tokenizer and the embedding."""
        return self.layers.start == 0

    @property
    def is_tail(self) -> bool:
        """Owns the final norm and the head."""
        return self.layers.end == self.blocks


@dataclass(slots=True)
class Forward:
    """Run rows through the slice, from its first layer up to `stop` (a layer of the whole model, exclusive).

    `tokens` feed a front slice, `hidden` any other. Rows stand at `position`, `position` + 1, ... of `sequence`,
    whose cache is first cut to `truncate_to` tokens if that is given. With `sample_from`, rows from that one on
    each get a token (only where `stop` is the end of the model); otherwise the hidden state after `stop` comes
    back, encoded as `reply`.
    """

    sequence: int
    position: int
    stop: int
    tokens: tuple[int, ...] = ()
    hidden: HiddenState | None = None
    truncate_to: int | None = None
    sample_from: int | None = None
    reply: Dtype | None = None

    @property
    def rows(self) -> int:
        """How many positions this forward adds."""
        return self.hidden.rows if self.hidden is not None else len(self.tokens)


@dataclass(slots=True)
class Output:
    """What a forward gave: a hidden state, or the sampled tokens (none, if none was asked for at the tail).

    `micros` is the time that the decode took, in microseconds.
    """

    hidden: HiddenState | None = None
    tokens: tuple[int, ...] = ()
    micros: int = 0


Done = Callable[[Output | IntelNavError], None]


class SliceEngine(Protocol):
    """A loaded slice. Every method raises EngineError if the worker is gone, PeerError if the call is wrong."""

    @property
    def info(self) -> SliceInfo:
        """What is loaded."""
        ...

    @property
    def in_use(self) -> int:
        """How many sequences are reserved."""
        ...

    @property
    def waiting(self) -> int:
        """How many calls are not answered yet, those that are being computed included."""
        ...

    async def open(self, sampling: Sampling | None) -> int:
        """Reserve a sequence with an empty cache; PeerError `busy` if all are taken."""
        ...

    def close(self, sequence: int) -> None:
        """Drop the sequence and its cache. Does not wait, and never raises for a worker that is gone."""
        ...

    def submit(self, forward: Forward, done: Done) -> None:
        """Run one forward, and call `done` from the event loop once it is computed or has failed.

        Forwards of one sequence are computed in the order in which they were submitted.
        """
        ...

    async def forward(self, forward: Forward, hand_on: Callable[[Output], None] | None = None) -> Output:
        """Submit one forward and wait for its output.

        `hand_on` gets the output first, and not a task switch later, unless who waits was cancelled. If it raises
        IntelNavError or ValueError, the wait ends so.
        """
        ...

    async def tokenize(self, text: str, special: bool) -> list[int]:
        """Tokens of `text`, with the model's begin token if it wants one; `special` parses control tokens."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of a token, none for a control token. They need not be whole UTF-8 characters.

        For a front slice only; IndexError for what is no token.
        """
        ...

    async def render(self, messages: list[dict[str, str]]) -> str:
        """The chat messages (`role`, `content`) as a prompt, by the model's own chat template."""
        ...
