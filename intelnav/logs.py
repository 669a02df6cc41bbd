"""Log lines for people or for programs, on standard error. Prompts, tokens and activations are never logged."""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

FIELDS = ("model", "layers", "peer", "session")
"""What a line can be about, beside its message: given as `extra`, and shown by both formats."""

_SHOWN = {"\n": "\n    ", "\t": " "}

# They would tell of each request of a fetch.
_CHATTY = ("httpx", "httpcore")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _HumanFormatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _time(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={text}" for name, text in _fields(record).items())
        line = super().formatMessage(record) + (f" [{fields}]" if fields else "")
        # Some words come from peers, who must not be able to write a line of their own.
        return "".join(char if char.isprintable() else _SHOWN.get(char, "?") for char in line)


def set_up_logging(level: str, style: Literal["human", "json"]) -> None:
    """Send everything from `level` on to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        _JsonFormatter()
        if style == "json"
        else _HumanFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _time(record: logging.LogRecord) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, str]:
    """The fields that the line was given; a session by the first 8 digits of its id."""
    found: dict[str, Any] = {
        name: value for name in FIELDS if (value := getattr(record, name, None)) is not None
    }
    return {
        name: value[:4].hex() if isinstance(value, bytes) else str(value) for name, value in found.items()
    }
