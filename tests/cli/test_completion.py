from collections.abc import Iterator

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from intelnav.cli.client import NodeClient
from intelnav.cli.completion import SlashCompleter
from intelnav.cli.slash import COMMANDS
from tests.cli.conftest import PROMPT, Served, Starting
from tests.fakes.control import CID


@pytest.fixture
def completer(served: Served) -> Iterator[SlashCompleter]:
    with NodeClient(str(served.socket)) as node:
        yield SlashCompleter(node)


def words(completer: SlashCompleter, text: str) -> list[str]:
    """The lines that Tab would make of `text`."""
    found = completer.get_completions(Document(text), CompleteEvent(completion_requested=True))
    return [text[: len(text) + each.start_position] + each.text for each in found]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("/", [f"/{name}" for name in COMMANDS]),
        ("/mo", ["/model", "/models"]),
        ("/model ", ["/model counting"]),
        ("/route c", ["/route counting"]),
        ("/models 2 ", ["/models 2 use", "/models 2 fetch", "/models 2 host"]),
        ("/leave ", ["/leave tiny", "/leave big"]),
        ("/leave tiny ", ["/leave tiny 2..4"]),
        (f"/leave {CID} 2", [f"/leave {CID} 2..4"]),
        ("/join  b", ["/join  big"]),
        ("/join big ", [f"/join big {one}" for one in ("0..7", "7..14", "14..21", "21..28", "0..28")]),
        ("/join tiny ", ["/join tiny 0..2", "/join tiny 2..4", "/join tiny 0..6"]),
        ("/join none ", []),
        ("/leave tiny 2..4 ", []),
        ("what is /le", []),
        ("", []),
    ],
)
def test_what_can_follow_is_offered(completer: SlashCompleter, text: str, lines: list[str]) -> None:
    assert words(completer, text) == lines


def test_without_a_node_nothing_is_offered_and_nothing_fails() -> None:
    with NodeClient("/nowhere/control.sock") as node:
        assert words(SlashCompleter(node), "/leave ") == []
        assert words(SlashCompleter(node), "/le") == ["/leave"]


def test_tab_completes_on_a_terminal(pty: Starting, served: Served) -> None:
    with pty("chat", "--node", str(served.socket)) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("/host\t")
        terminal.wait_for("ing")
        terminal.type("\r")
        terminal.wait_for("0badcafe")
        terminal.wait_for(PROMPT)
        terminal.type("/leave ti\t")
        terminal.wait_for("ny")
        terminal.type(" 2\t")
        terminal.wait_for(r"\.\.4")
        terminal.type("\r")
        terminal.wait_for("draining, 1 answer still runs")
