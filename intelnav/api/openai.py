"""What a completion request may say: OpenAI's fields, checked before the engine hears of them.

A field that would change the answer in a way that we do not offer is refused by name, so nobody is answered
with something else than was asked for.
"""

import secrets
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from intelnav.api.bodies import StrictBody
from intelnav.chain.interface import Request
from intelnav.domain.sampling import Sampling

# Used where the client is silent. The models served here are quantised and often small: at OpenAI's default
# temperature of 1, with nothing cut off, their many slightly likely tokens show as wrong words.
DEFAULT_TEMPERATURE = 0.7
DEFAULT_TOP_P = 0.95

# Book-keeping for OpenAI's own service; has no bearing on the answer.
_IGNORED = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
# Fields that ask for nothing at this value, and for something that is not offered at any other.
_NEUTRAL: dict[str, object] = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}}


def _listed(value: Any) -> Any:
    """A lone string as a list of one, so that errors name the field and no alternative of its type."""
    return [value] if isinstance(value, str) else value


def _role(value: Any) -> Any:
    return "system" if value == "developer" else value


def _parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


StopText = Annotated[str, Field(min_length=1, max_length=256)]


class StreamOptions(StrictBody):
    """`include_obfuscation` pads events against eavesdroppers; it is accepted and has no effect."""

    include_usage: bool = False
    include_obfuscation: bool = False


class _Body(StrictBody):
    """Fields that chat and plain completions share."""

    neutral: ClassVar[dict[str, object]] = _NEUTRAL

    model: str = Field(min_length=1, max_length=256)
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**20)
    min_p: float | None = Field(None, ge=0, le=1)
    repeat_penalty: float | None = Field(None, ge=0.1, le=10)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[StopText], BeforeValidator(_listed), Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    intelnav: bool = False

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {
            name: value
            for name, value in fields.items()
            if name not in _IGNORED and not (name in cls.neutral and value in (None, cls.neutral[name]))
        }

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed together with stream: true")
        return self

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def _sampling(self) -> Sampling:
        return Sampling(
            # OpenAI's seeds have 64 bits, the sampler's 32.
            seed=(secrets.randbits(32) if self.seed is None else self.seed) % 2**32,
            temperature=DEFAULT_TEMPERATURE if self.temperature is None else self.temperature,
            top_k=self.top_k or 0,
            top_p=DEFAULT_TOP_P if self.top_p is None else self.top_p,
            min_p=self.min_p or 0.0,
            repeat_penalty=1.0 if self.repeat_penalty is None else self.repeat_penalty,
        )


class TextPart(StrictBody):
    """The one kind of content part that a text model can read."""

    type: Literal["text"]
    text: str


class Message(StrictBody):
    """One turn of the conversation."""

    # "developer" is what OpenAI calls the system in newer models; templates know the older name.
    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(_role)]
    content: Annotated[list[TextPart], BeforeValidator(_parts)]

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_null(cls, given: object) -> object:
        """A client that sends an answer back sends along what was not in it; a name changes nothing here."""
        if not isinstance(given, dict):
            return given
        return {
            name: value
            for name, value in given.items()
            if name != "name" and (value is not None or name in cls.model_fields)
        }

    @property
    def text(self) -> str:
        """The content as one string; parts stand on lines of their own."""
        return "\n".join(part.text for part in self.content)


class ChatBody(_Body):
    """`POST /v1/chat/completions`."""

    neutral: ClassVar[dict[str, object]] = _NEUTRAL | {
        "logprobs": False,
        "top_logprobs": 0,
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "modalities": ["text"],
    }

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1)

    def request(self) -> Request:
        """The question as the chain takes it."""
        return Request(
            model=self.model,
            messages=tuple({"role": message.role, "content": message.text} for message in self.messages),
            max_tokens=self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens,
            stop=tuple(self.stop or ()),
            sampling=self._sampling(),
        )


class TextBody(_Body):
    """`POST /v1/completions`."""

    neutral: ClassVar[dict[str, object]] = _NEUTRAL | {
        "best_of": 1,
        "echo": False,
        "logprobs": None,
        "suffix": "",
    }

    prompt: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1, max_length=1)]

    def request(self) -> Request:
        """The question as the chain takes it; the prompt goes in as it is, without a chat template."""
        return Request(
            model=self.model,
            prompt=self.prompt[0],
            max_tokens=self.max_tokens,
            stop=tuple(self.stop or ()),
            sampling=self._sampling(),
        )


Body = TypeVar("Body", ChatBody, TextBody)
