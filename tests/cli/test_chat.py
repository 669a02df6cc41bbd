import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from intelnav.domain.errors import Code, PeerError
from tests.cli.conftest import COMMAND, Cli, Served
from tests.waiting import until

# The prompt is drawn as a sign and a move of the cursor.
PROMPT = r"0m>( |\x08)"


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


@dataclass
class Terminal:
    """The command on a terminal of its own: what is typed, and what is seen so far."""

    process: "subprocess.Popen[bytes]"
    master: int
    seen: str = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, pattern: str) -> None:
        """Read until `pattern` is seen; what was seen up to it does not count again."""
        deadline = time.monotonic() + 15
        while (match := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} is not in {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode()
        self.seen = self.seen[match.end() :]


@pytest.fixture
def terminal(cli: Cli, served: Served) -> Iterator[Terminal]:
    """A chat on a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "chat", "--node", str(served.socket)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=cli.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        # A terminal sends its signals to the session that it controls.
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    yield Terminal(process, master)
    process.kill()
    process.wait()
    os.close(master)


def test_an_interrupt_ends_the_answer_and_not_the_program(terminal: Terminal, served: Served) -> None:
    served.completer.holds[2] = anyio.Event()
    terminal.wait_for(PROMPT)
    terminal.type("first\r")
    terminal.wait_for("0 1 ")
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
