"""Answers as OpenAI's JSON objects: one body, or the chunks of a stream."""

import json
import secrets
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from intelnav.chain.interface import Ending

Json = dict[str, Any]


def event(data: Json | str) -> bytes:
    """One server-sent event."""
    # ASCII only: some clients also split lines at U+0085 and U+2028, which JSON would let through.
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), allow_nan=False)
    return f"data: {text}\n\n".encode()


def rfc3339(at: float) -> str:
    """A unix time, to the millisecond, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def usage(ending: Ending) -> Json:
    """Token counts of one answer."""
    return {
        "prompt_tokens": ending.prompt_tokens,
        "completion_tokens": ending.tokens,
        "total_tokens": ending.prompt_tokens + ending.tokens,
    }


def report(ending: Ending, tokens: list[int]) -> Json:
    """What `"intelnav": true` adds: token ids, who computed which layers, and how long it took."""
    chain = [
        {"peer": hop.peer, "layers": str(hop.layers), "milliseconds": hop.milliseconds}
        for hop in ending.chain
    ]
    return {"tokens": tokens, "chain": chain, "timing": asdict(ending.timing)}


@dataclass(frozen=True, slots=True)
class Reply:
    """The frame of one answer: its id, time and model are the same in every chunk."""

    model: str
    chat: bool
    nonce: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def _frame(self, suffix: str, choices: list[Json]) -> Json:
        prefix, kind = ("chatcmpl", "chat.completion" + suffix) if self.chat else ("cmpl", "text_completion")
        return {
            "id": f"{prefix}-{self.nonce}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def opening(self) -> Json:
        """First chunk of a chat: who speaks."""
        delta = {"role": "assistant", "content": ""}
        return self._frame(".chunk", [{"index": 0, "delta": delta, "finish_reason": None}])

    def chunk(self, text: str, reason: str | None = None) -> Json:
        """Some text of the answer, or its end with a `reason`."""
        part = {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        return self._frame(".chunk", [{"index": 0, **part, "finish_reason": reason}])

    def counts(self, ending: Ending) -> Json:
        """Last chunk of a stream that asked for usage; it has no choices."""
        return self._frame(".chunk", []) | {"usage": usage(ending)}

    def whole(self, text: str, ending: Ending) -> Json:
        """The answer in one body."""
        part = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **part, "finish_reason": ending.reason}
        return self._frame("", [choice]) | {"usage": usage(ending)}
