import json
import shlex
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from intelnav.api.network import Cover
from intelnav.cli import suggestion
from intelnav.cli.main import app
from intelnav.cli.suggestion import Machine
from intelnav.config import load
from intelnav.domain.advert import Address
from intelnav.domain.errors import Code, ConfigError, PeerError
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from tests.cli.conftest import Cli, Served
from tests.fakes.network import SERVED

# Small enough for whatever machine the tests run on.
LACKING = replace(
    SERVED,
    blocks=6,
    size_bytes=6_000_000,
    missing=("2..4",),
    cover=(Cover("0..2", 2), Cover("2..4", 0), Cover("4..6", 1)),
)
EMBEDDED = "smollm2-135m-instruct-q4_1"


def test_a_first_start_writes_what_the_node_takes(cli: Cli, tmp_path: Path) -> None:
    result = cli("init", "--yes", "--bootstrap", "192.0.2.9:7717", "--bootstrap", "[2001:db8::9]:7717")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("This machine has ")
    assert f"of {EMBEDDED}: about " in result.stdout
    assert "No node was there to ask what the swarm lacks." in result.stdout
    assert result.stdout.endswith("node.yaml is written.\nNext: intelnav-node --config node.yaml\n")
    config = load(tmp_path / "node.yaml", {})
    assert config.role == "host"
    assert [each.model for each in config.slices] == [ModelRef("name", EMBEDDED)]
    assert config.network.listen == Address("0.0.0.0", 7717)
    assert config.network.bootstrap == (Address("192.0.2.9", 7717), Address("2001:db8::9", 7717))
    assert [item.name for item in tmp_path.iterdir()] == ["node.yaml"]


def test_a_running_node_tells_what_the_swarm_lacks(cli: Cli, served: Served, tmp_path: Path) -> None:
    served.network.models = (LACKING,)
    result = cli("init", "--yes", "--json", "--node", str(served.socket))
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["role"] == "host"
    assert report["slice"].items() >= {"model": SERVED.cid, "name": "big", "without_host": 2}.items()
    config = load(tmp_path / "node.yaml", {})
    assert config.slices[0].model == ModelRef("cid", SERVED.cid)
    assert config.slices[0].layers.covers(LayerRange(2, 4))
    assert str(config.slices[0].layers) == report["slice"]["layers"]
    text = cli("init", "--yes", "--force", "--node", str(served.socket)).stdout
    assert "2 of these layers have no host." in text


def test_json_is_what_was_decided(cli: Cli, tmp_path: Path) -> None:
    result = cli(
        "init", "--role", "relay", "--json", "--yes", "--config", "a b/x.yaml", "--listen", "[::]:9000"
    )
    report = json.loads(result.stdout)
    machine = report.pop("machine")
    assert report == {
        "file": str(tmp_path / "a b/x.yaml"),
        "command": "intelnav-node --config 'a b/x.yaml'",
        "role": "relay",
        "slice": None,
        "listen": "[::]:9000",
        "bootstrap": [],
    }
    assert shlex.split(report["command"])[-1] == "a b/x.yaml"
    assert machine["room_bytes"] == machine["free_bytes"] // 2 <= machine["memory_bytes"]
    assert machine["cores"] >= 1
    assert load(tmp_path / "a b/x.yaml", {}).role == "relay"


@pytest.mark.parametrize("answer", ["y\n", "\n", "YES\n"])
def test_who_agrees_gets_the_file(cli: Cli, tmp_path: Path, answer: str) -> None:
    result = cli("init", "--role", "relay", stdin=answer)
    assert result.returncode == 0
    assert "It will relay" in result.stdout
    assert "Write node.yaml? [Y/n]" in result.stderr
    assert load(tmp_path / "node.yaml", {}).role == "relay"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("n\n", "--role and --config"), ("\0\n", "--role and --config"), ("", "--yes asks none")],
)
def test_who_does_not_agree_gets_none(cli: Cli, tmp_path: Path, answer: str, reason: str) -> None:
    result = cli("init", "--json", stdin=answer)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("This machine has ")
    assert "intelnav: nothing is written" in result.stderr
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("mine")
    result = cli("init", "--yes")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "intelnav: node.yaml is there already: add --force to overwrite it, or name another with --config\n"
    )
    assert (tmp_path / "node.yaml").read_text() == "mine"
    assert cli("init", "--yes", "--force").returncode == 0
    assert load(tmp_path / "node.yaml", {}).role == "host"


def test_a_wrong_variable_is_told_and_nothing_written(cli: Cli, tmp_path: Path) -> None:
    result = cli("init", "--yes", INTELNAV_LIMITS__SESSIONS="many")
    assert result.returncode == 1
    assert "INTELNAV_LIMITS__SESSIONS" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_was_named_must_answer(cli: Cli, served: Served, tmp_path: Path) -> None:
    nobody = cli("init", "--yes", "--node", "/nowhere")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "no node answers at /nowhere/control.sock" in nobody.stderr
    served.network.fail = PeerError(Code.TIMEOUT, "nobody answered")
    failed = cli("init", "--yes", "--node", str(served.socket))
    assert (failed.returncode, failed.stderr) == (1, "intelnav: nobody answered\n")
    assert not (tmp_path / "node.yaml").exists()


def test_a_node_that_is_not_named_need_not_answer(cli: Cli, tmp_path: Path) -> None:
    """Nothing listens on a socket that a killed node left behind."""
    folder = tmp_path / ".local/share/intelnav"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "control.sock"))
    assert cli("init", "--yes").returncode == 0
    assert load(tmp_path / "node.yaml", {}).slices[0].model == ModelRef("name", EMBEDDED)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    """The command on a machine with almost no memory left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTELNAV_NODE", str(tmp_path))
    monkeypatch.setattr(suggestion, "this_machine", lambda: Machine(1, 512_000_000, 100_000_000))
    return CliRunner()


def test_where_no_slice_fits_the_node_relays(small: CliRunner) -> None:
    result = small.invoke(app, ["init", "--yes"])
    assert result.exit_code == 0, result
    assert "This machine has 1 cores and 0.5 GB of memory, of which 0.1 GB are free" in result.stdout
    assert "No slice fits, so it can relay" in result.stdout
    assert load(Path("node.yaml"), {}).role == "relay"


def test_who_insists_on_hosting_is_told_what_fits(small: CliRunner) -> None:
    result = small.invoke(app, ["init", "--yes", "--role", "host"])
    assert isinstance(result.exception, ConfigError)
    assert "--role host: no slice of a known model fits in 0.1 GB" in str(result.exception)
    assert not Path("node.yaml").exists()
