import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from intelnav.api.control import Change, PlanReport
from intelnav.domain.errors import ConfigError
from tests.cli.conftest import Cli, Served, Starting
from tests.fakes.control import PLANNED


def test_without_a_file_it_tells_what_is_about_to_be_done(cli: Cli, served: Served) -> None:
    result = cli("plan", "--node", str(served.socket))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "The node is about to\n"
        "  withdraw tiny 2..4: the config has it no more\n"
        "  load [big] (the last layer)\n"
        "Only a restart of the node applies: data_dir, network.listen\n"
    )
    served.control.report = PlanReport((), (Change("keep", "tiny", "0..2"),), ())
    idle = cli("plan", "--node", str(served.socket))
    assert idle.stdout == "Nothing is to be done: the node is as its config says.\n"


def test_an_edit_is_shown_as_a_diff(cli: Cli, served: Served, tmp_path: Path) -> None:
    (tmp_path / "edit.toml").write_text("# née\n")
    result = cli("plan", "edit.toml", "--node", str(served.socket))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[:7] == [
        "= tiny 0..2",
        "- tiny 2..4",
        "~ tiny 4..6",
        "+ [big] (the last layer)",
        "",
        "The node would",
        "  withdraw tiny 2..4: the config has it no more",
    ]
    assert served.control.asked == [("plan", "# née\n", "toml")]


def test_on_a_terminal_the_diff_has_colours(pty: Starting, served: Served, tmp_path: Path) -> None:
    (tmp_path / "edit.yaml").write_text("{}")
    with pty("plan", "edit.yaml", "--node", str(served.socket)) as terminal:
        terminal.wait_for(r"\x1b\[2m= tiny 0\.\.2")
        terminal.wait_for(r"\x1b\[31m- tiny 2\.\.4")
        terminal.wait_for(r"\x1b\[33m~ tiny 4\.\.6")
        terminal.wait_for(r"\x1b\[32m\+ \[big\]")
        assert terminal.process.wait(10) == 0


def test_an_edit_that_changes_no_slice_says_so(cli: Cli, served: Served, tmp_path: Path) -> None:
    (tmp_path / "edit.yml").write_text("{}")
    served.control.report = replace(PLANNED, changes=(Change("keep", "tiny", "0..2"),), actions=())
    result = cli("plan", "edit.yml", "--node", str(served.socket))
    assert result.stdout.splitlines()[:2] == ["= tiny 0..2", "No slice is changed."]
    assert "Only a restart" in result.stdout


def test_json_is_what_the_node_says(cli: Cli, served: Served, tmp_path: Path) -> None:
    (tmp_path / "edit.yaml").write_text("{}")
    for arguments in ((), ("edit.yaml",)):
        result = cli("plan", *arguments, "--json", "--node", str(served.socket))
        assert json.loads(result.stdout) == json.loads(json.dumps(asdict(PLANNED)))


def test_a_config_that_the_node_refuses_is_one_message(cli: Cli, served: Served, tmp_path: Path) -> None:
    (tmp_path / "edit.yaml").write_text("slices: 7")
    served.control.fail = ConfigError("slices: 7 is no list")
    result = cli("plan", "edit.yaml", "--node", str(served.socket))
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "intelnav: slices: 7 is no list\n")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("none.yaml", None, "No such file"),
        ("folder.yaml", "folder", "Is a directory"),
        ("edit.json", b"{}", "name it .yaml or .toml"),
        ("edit.yaml", b"\xff", "byte 0 is not UTF-8"),
        ("edit.yaml", b"#" * (2**20 + 1), "larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_config_is_not_sent(
    cli: Cli, served: Served, tmp_path: Path, name: str, data: bytes | str | None, reason: str
) -> None:
    if isinstance(data, bytes):
        (tmp_path / name).write_bytes(data)
    elif data is not None:
        (tmp_path / name).mkdir()
    result = cli("plan", name, "--node", str(served.socket))
    assert result.returncode == 1
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert served.control.asked == []
