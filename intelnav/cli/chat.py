"""`intelnav chat`: a conversation."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from intelnav.cli.ask import MaxTokens, Model, NodeOption, Seed, System, Temperature
from intelnav.domain.errors import IntelNavError

if TYPE_CHECKING:
    from intelnav.cli.client import NodeClient
    from intelnav.cli.slash import Commands


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
    from intelnav.cli.conversation import Conversation
    from intelnav.cli.slash import Commands

    with NodeClient(node) as asked:
        settings = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        commands = Commands(Conversation(asked, model or asked.models()[0], system, settings))
        for line in _lines(asked):
            if not _take(commands, line.strip()):
                break


def _take(commands: "Commands", line: str) -> bool:
    """Answer a line or obey a command; False if it was the last one. An error is shown and survived."""
    from intelnav.cli.terminal import complain, note

    try:
        if line.startswith("/"):
            commands.obey(line)
        elif line:
            commands.conversation.ask(line)
    except IntelNavError as error:
        complain(error)
    except KeyboardInterrupt:
        note("cancelled")
    except EOFError:
        return False
    return True


def _lines(node: "NodeClient") -> Iterator[str]:
    """What the user types, or what is piped in."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory

    from intelnav.cli.completion import SlashCompleter

    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(_history())),
        completer=SlashCompleter(node),
        # A question costs no request while it is typed: the node is asked at Tab only.
        complete_while_typing=False,
    )
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
