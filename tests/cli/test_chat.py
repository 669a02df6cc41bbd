from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from intelnav.domain.errors import Code, PeerError
from tests.cli.conftest import PROMPT, Cli, Served, Starting, Terminal
from tests.waiting import until, until_asleep


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_piped_lines_are_one_conversation(cli: Cli, served: Served) -> None:
    result = cli("chat", "--node", str(served.socket), "--system", "Be brief.", stdin="one\n\ntwo\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "0 1 2 3 \n0 1 2 3 \n", "")
    instructions = {"role": "system", "content": "Be brief."}
    assert [request.messages for request in served.completer.requests] == [
        (instructions, user("one")),
        (instructions, user("one"), {"role": "assistant", "content": "0 1 2 3 "}, user("two")),
    ]


def test_a_reset_and_new_instructions_begin_afresh(cli: Cli, served: Served) -> None:
    cli(
        "chat",
        "--node",
        str(served.socket),
        stdin="one\n/reset\ntwo\n/system Be kind.\nthree\n/system\nfour\n",
    )
    assert [request.messages for request in served.completer.requests] == [
        (user("one"),),
        (user("two"),),
        ({"role": "system", "content": "Be kind."}, user("three")),
        (user("four"),),
    ]


def test_commands(cli: Cli, served: Served) -> None:
    lines = "/help\n/model\n/model counting\n/model other\n/status\n/dance\n/\n/quit\nnever asked\n"
    result = cli("chat", "--node", str(served.socket), stdin=lines)
    assert result.returncode == 0
    assert "/reset" in result.stdout
    assert "* counting\n" in result.stdout
    assert "version 1.2.3" in result.stdout
    assert result.stderr == (
        "no model 'other' here; there are: counting\n"
        "/dance is no command; /help lists them\n"
        "/ is no command; /help lists them\n"
    )
    assert served.completer.requests == []


def test_a_failed_answer_is_told_and_forgotten(cli: Cli, served: Served) -> None:
    served.completer.fail_after = 1, PeerError(Code.ENGINE_FAILED, "the worker of peer-b died")
    result = cli("chat", "--node", str(served.socket), stdin="one\ntwo\n")
    assert result.returncode == 0
    assert result.stderr == "intelnav: the worker of peer-b died\n" * 2
    assert served.completer.requests[1].messages == (user("two"),)


@pytest.fixture
def terminal(pty: Starting, served: Served) -> Iterator[Terminal]:
    """A chat on a terminal."""
    with pty("chat", "--node", str(served.socket)) as terminal:
        yield terminal


def test_an_interrupt_ends_the_answer_and_not_the_program(terminal: Terminal, served: Served) -> None:
    served.completer.holds[2] = anyio.Event()
    terminal.wait_for(PROMPT)
    terminal.type("first\r")
    terminal.wait_for("0 1 ")
    until_asleep(terminal.process.pid)
    terminal.type("\x03")
    terminal.wait_for("cancelled")
    until(lambda: served.completer.open == 0)
    served.completer.holds.clear()
    terminal.wait_for(PROMPT)
    terminal.type("\x03")
    terminal.wait_for(PROMPT)
    terminal.type("second\r")
    terminal.wait_for("0 1 2 3 ")
    terminal.wait_for("4 tokens, 8.0 a second, 2 nodes")
    terminal.wait_for(PROMPT)
    terminal.type("\x04")
    assert terminal.process.wait(10) == 0
    assert served.completer.requests[1].messages == (
        user("first"),
        {"role": "assistant", "content": "0 1 "},
        user("second"),
    )


def test_lines_are_remembered_for_their_owner_alone(terminal: Terminal, tmp_path: Path) -> None:
    terminal.wait_for(PROMPT)
    terminal.type("/model\r")
    terminal.wait_for("counting")
    terminal.wait_for(PROMPT)
    terminal.type("\x04")
    assert terminal.process.wait(10) == 0
    history = tmp_path / ".local/state/intelnav/history"
    assert "/model" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
