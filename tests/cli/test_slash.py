import pytest

from intelnav.api.control import PlanReport
from intelnav.cli.slash import COMMANDS
from intelnav.domain.slice import LayerRange
from tests.cli.conftest import Cli, Served
from tests.fakes.control import CID
from tests.fakes.network import NEAR


def test_help_has_every_command(cli: Cli, served: Served) -> None:
    result = cli("chat", "--node", str(served.socket), stdin="/help\n")
    assert [line.split()[0] for line in result.stdout.splitlines()][:-1] == [f"/{name}" for name in COMMANDS]


def test_the_node_is_looked_at(cli: Cli, served: Served, tmp_path: object) -> None:
    lines = "/status\n/hosting\n/route\n/route other\n/plan\n"
    result = cli("chat", "--node", str(served.socket), stdin=lines)
    shown = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for wanted in (
        f"tiny 2..4 ready 1 of 8 {CID}",
        "Chain 1: 61.5 ms for a token, as predicted",
        "The node is about to",
    ):
        assert wanted in shown
    assert NEAR[:8] in result.stdout
    assert result.stderr == "intelnav: model 'other' is not served here; served: counting\n"
    assert served.network.asked == [("counting", 1), ("other", 1)]


def test_an_edit_is_planned(cli: Cli, served: Served) -> None:
    (cli.home / "my edit.yaml").write_text("slices: []\n")
    served.control.report = PlanReport((), (), ())
    lines = "/plan my edit.yaml\n/plan ~/my edit.yaml\n/plan none.yaml\n"
    result = cli("chat", "--node", str(served.socket), stdin=lines)
    assert result.stdout == "No slice is changed.\n" * 2
    assert result.stderr.startswith("intelnav: none.yaml: No such file")
    assert served.control.asked == [("plan", "slices: []\n", "yaml")] * 2


def test_slices_are_left_and_joined(cli: Cli, served: Served) -> None:
    lines = "/leave tiny 2..4\n/join ./my model.gguf 0..2\n"
    result = cli("chat", "--node", str(served.socket), stdin=lines)
    assert (result.returncode, result.stderr) == (0, "")
    assert "tiny 2..4: draining, 1 answer still runs." in result.stdout
    assert result.stdout.count("This lasts until the config is next loaded.") == 2
    assert served.control.asked == [
        ("leave", "tiny", LayerRange(2, 4)),
        ("join", str(cli.home / "my model.gguf"), LayerRange(0, 2)),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/leave", "write /leave MODEL START..END"),
        ("/join tiny", "write /join MODEL START..END"),
        ("/join tiny 4..2", "layers 4..2: the start must lie below the end"),
        ("/leave tiny all", "'all' is no layer range: write START..END, for instance 8..15"),
        ("/leave tiny 0..2", "layers 0..2 of tiny are not hosted here"),
        ("/join tiny 2..4", "layers 2..4 of tiny are hosted already"),
    ],
)
def test_what_cannot_be_is_told_and_survived(cli: Cli, served: Served, line: str, reason: str) -> None:
    result = cli("chat", "--node", str(served.socket), stdin=f"{line}\nhello\n")
    assert (result.returncode, result.stderr) == (0, f"intelnav: {reason}\n")
    assert result.stdout == "0 1 2 3 \n"


@pytest.mark.parametrize("word", ["/quit", "/exit"])
def test_words_that_leave(cli: Cli, served: Served, word: str) -> None:
    result = cli("chat", "--node", str(served.socket), stdin=f"{word}\nhello\n")
    assert (result.returncode, result.stdout, served.completer.requests) == (0, "", [])
