"""Chat messages to a prompt, by the Jinja template that a model carries."""

import json
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from intelnav.domain.errors import Code, EngineError, PeerError


class ChatTemplate:
    """A compiled template; `begin` and `end` are the texts of the model's begin and end tokens.

    The template comes with the model, from anyone: it runs in Jinja's sandbox, with what Hugging Face's
    `apply_chat_template` offers and nothing else. Raises EngineError if it is no valid template.
    """

    def __init__(self, source: str, begin: str, end: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
        try:
            self._template = environment.from_string(source)
        # Python compiles what Jinja makes of it, with limits of its own to depth and size.
        except (TemplateError, SyntaxError, RecursionError, MemoryError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise EngineError(
                f"the model's chat template is broken ({reason}): send it a raw prompt"
            ) from None
        self._tokens = {"bos_token": begin, "eos_token": end}

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt that asks for the assistant's next words; PeerError if the template refuses the messages."""
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._tokens)
        except (
            TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            reason = f"the model's chat template does not take these messages: {error}"
            raise PeerError(Code.BAD_REQUEST, reason) from None


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(layout: str) -> str:
    return datetime.now().astimezone().strftime(layout)


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes for HTML, which a model would read as it stands.
    return json.dumps(value, ensure_ascii=False, indent=indent)
