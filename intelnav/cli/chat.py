"""`intelnav chat`: a conversation."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from intelnav.cli.ask import MaxTokens, Model, NodeOption, Seed, System, Temperature, messages
from intelnav.domain.errors import IntelNavError

if TYPE_CHECKING:
    from intelnav.cli.client import NodeClient

HELP = """\
/help           this list
/model [NAME]   show the models, or talk to another one
/system [TEXT]  start afresh with these instructions, or with none
/reset          start afresh
/status         what the node runs
/quit           leave; Ctrl-D does, too
Ctrl-C ends an answer."""


def chat(
    model: Model = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    system: System = None,
    node: NodeOption = None,
) -> None:
    """Talk with a model."""
    from intelnav.cli.client import NodeClient

    with NodeClient(node) as asked:
        settings = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        conversation = Conversation(asked, model, system, settings)
        for line in _lines():
            if not conversation.take(line.strip()):
                break


class Conversation:
    """What was said so far, and with whom."""

    def __init__(
        self, node: "NodeClient", model: str | None, system: str | None, settings: dict[str, float | None]
    ) -> None:
        self._node = node
        self._model = model or node.models()[0]
        self._system = system
        self._settings = settings
        self._said: list[dict[str, str]] = []

    def take(self, line: str) -> bool:
        """Answer a line or obey a command; False if it was the last one. An error is shown and survived."""
        from intelnav.cli.terminal import complain

        try:
            if line.startswith("/"):
                return self._obey(*line[1:].split(None, 1))
            if line:
                self._answer(line)
        except IntelNavError as error:
            complain(error)
        return True

    def _answer(self, line: str) -> None:
        from intelnav.cli.terminal import note, show, summary

        question = messages(line, None) if self._said else messages(line, self._system)
        reply = None
        try:
            with self._node.ask([*self._said, *question], self._model, **self._settings) as reply:
                show(reply)
                note(summary(reply))
        except KeyboardInterrupt:
            print()
            note("cancelled")
        if reply is not None:
            self._said += [*question, {"role": "assistant", "content": reply.text}]

    def _obey(self, command: str = "", argument: str | None = None) -> bool:
        match command:
            case "quit" | "exit":
                return False
            case "model":
                self._choose(argument)
            case "system":
                self._system, self._said = argument, []
            case "reset":
                self._said = []
            case "status":
                self._status()
            case "help":
                print(HELP)
            case _:
                print(f"/{command} is no command; /help lists them", file=sys.stderr)
        return True

    def _choose(self, name: str | None) -> None:
        names = self._node.models()
        if name is None:
            for known in names:
                print(f"{'*' if known == self._model else ' '} {known}")
        elif name in names:
            self._model = name
        else:
            print(f"no model {name!r} here; there are: {', '.join(names)}", file=sys.stderr)

    def _status(self) -> None:
        from rich.console import Console

        from intelnav.cli.status import tables

        Console(highlight=False).print(*tables(self._node.status()), sep="\n\n")


def _lines() -> Iterator[str]:
    """What the user types, or what is piped in."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory

    session: PromptSession[str] = PromptSession(history=FileHistory(str(_history())))
    print("Type a question, or /help.")
    while True:
        try:
            yield session.prompt("> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _history() -> Path:
    """The file of typed lines, readable by its owner alone."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "intelnav"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "history"
    path.touch(mode=0o600)
    return path
