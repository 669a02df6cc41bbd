from dataclasses import replace

import anyio
import pytest

from intelnav.domain.errors import Code, ContentError, PeerError
from intelnav.domain.slice import LayerRange
from tests.cli.conftest import PROMPT, Cli, Served, Starting
from tests.fakes.library import CID, LOCAL, OFFERED
from tests.fakes.network import SERVED, WHOLE
from tests.waiting import until

LISTED = [
    "  1 local   tiny: 1.2 MB, 6 layers, here: the file, 0..2, 2..4, all of it fits",
    "  2 swarm   big: 280.0 MB, 28 layers, 3 hosts, without a host: 7..14",
    "  3 catalog big: ?, 28 layers, 10 layers fit",
]


def test_the_three_sources_are_numbered(cli: Cli, served: Served) -> None:
    result = cli("chat", "--node", str(served.socket), stdin="/models\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == LISTED


def test_a_model_stands_in_the_first_source_that_has_it(cli: Cli, served: Served) -> None:
    served.library.models = (LOCAL, replace(OFFERED, cid=SERVED.cid))
    served.network.models = (SERVED, WHOLE)
    result = cli("chat", "--node", str(served.socket), stdin="/models\n")
    assert result.stdout.splitlines() == LISTED[:2]


def test_the_rest_is_listed_without_the_swarm(cli: Cli, served: Served) -> None:
    served.network.fail = PeerError(Code.TIMEOUT, "nobody answered")
    result = cli("chat", "--node", str(served.socket), stdin="/models\n")
    assert result.stdout.splitlines() == [LISTED[0], LISTED[2].replace("  3", "  2")]
    assert result.stderr == "What the swarm serves is not known: nobody answered\n"


def test_layers_are_hosted(cli: Cli, served: Served) -> None:
    lines = "/models 1 host 0..2\n/models 2 host 7..14\n/models 3 host 0..7\n"
    result = cli("chat", "--node", str(served.socket), stdin=lines)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("This lasts until the config is next loaded.") == 3
    assert served.control.asked == [
        ("join", CID, LayerRange(0, 2)),
        ("join", SERVED.cid, LayerRange(7, 14)),
        ("join", "big", LayerRange(0, 7)),
    ]


def test_a_model_is_fetched_from_where_it_can_be(cli: Cli, served: Served) -> None:
    lines = "/models 3 fetch\n/models 2 fetch\n/models 1 fetch\n"
    result = cli("chat", "--node", str(served.socket), stdin=lines)
    assert result.stdout == f"tiny is here: 1.2 MB, {CID}\n"
    assert result.stderr == (
        "intelnav: big cannot be fetched: peers give it out in slices: host some layers\n"
        "intelnav: tiny cannot be fetched: its file is here\n"
    )
    assert served.library.asked == [("bring", "big")]
    served.library.fail = ContentError("the file has another SHA-256 than was published")
    failed = cli("chat", "--node", str(served.socket), stdin="/models 3 fetch\nhello\n")
    assert failed.stderr == "intelnav: the file has another SHA-256 than was published\n"
    assert failed.stdout == "0 1 2 3 \n"


def test_a_model_that_the_node_answers_for_is_taken(cli: Cli, served: Served) -> None:
    served.library.models = (replace(LOCAL, cid="b3-counting"), OFFERED)
    served.network.models = (SERVED,)
    lines = "/models 1\n/models 1 use\n/model\n/models 3 use\n"
    result = cli("chat", "--node", str(served.socket), "--model", "gone", stdin=lines)
    assert result.stdout == "* counting\n"
    assert result.stderr == (
        "intelnav: this node does not answer for big: name it under `entry` in its config\n"
    )


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("0", "'0' is no model here: write a number from 1 to 3"),
        ("4 use", "'4' is no model here: write a number from 1 to 3"),
        ("tiny", "'tiny' is no model here: write a number from 1 to 3"),
        ("1 eat", "write /models 1 use, fetch, or host START..END"),
        ("1 use 0..2", "write /models 1 use, fetch, or host START..END"),
        ("1 host", "write /models 1 use, fetch, or host START..END"),
        ("1 host 3", "'3' is no layer range: write START..END, for instance 8..15"),
    ],
)
def test_what_cannot_be_picked_is_told(cli: Cli, served: Served, argument: str, reason: str) -> None:
    result = cli("chat", "--node", str(served.socket), stdin=f"/models {argument}\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", f"intelnav: {reason}\n")
    assert served.control.asked == []


DOWN = "\x1b[B"


def test_on_a_terminal_layers_are_picked_with_the_arrows(pty: Starting, served: Served) -> None:
    with pty("chat", "--node", str(served.socket)) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("/models\r")
        terminal.wait_for("Which model")
        terminal.wait_for("10 layers fit")
        terminal.type(f"{DOWN}\r")
        terminal.wait_for("What with big")
        terminal.wait_for("host layers of it")
        terminal.type(f"{DOWN}\r")
        terminal.wait_for("Layers: ")
        terminal.wait_for(r"7\.\.14")
        terminal.type("\r")
        terminal.wait_for("until the config is next loaded")
        terminal.wait_for(PROMPT)
        terminal.type("\x04")
        assert terminal.process.wait(10) == 0
    assert served.control.asked == [("join", SERVED.cid, LayerRange(7, 14))]


def test_thinking_better_of_it_is_no_end_of_the_chat(pty: Starting, served: Served) -> None:
    with pty("chat", "--node", str(served.socket)) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("/models\r")
        terminal.wait_for("10 layers fit")
        terminal.type("\x03")
        terminal.wait_for("cancelled")
        terminal.wait_for(PROMPT)
        terminal.type("hello\r")
        terminal.wait_for("0 1 2 3 ")
        terminal.wait_for(PROMPT)
        terminal.type("\x04")
        assert terminal.process.wait(10) == 0
    assert served.control.asked == []


def test_a_fetch_shows_a_bar_and_an_interrupt_cancels_it(pty: Starting, served: Served) -> None:
    served.library.steps = [anyio.Event()]
    with pty("chat", "--node", str(served.socket)) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("/models 3 fetch\r")
        terminal.wait_for("downloading")
        terminal.type("\x03")
        terminal.wait_for("cancelled")
        terminal.wait_for(PROMPT)
        until(lambda: served.library.cancelled.is_set() and served.library.at_work == 0)
        terminal.type("hello\r")
        terminal.wait_for("0 1 2 3 ")
