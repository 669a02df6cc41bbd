import json
import tomllib
from dataclasses import asdict, replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from intelnav.cli.hosting import lines
from intelnav.domain.errors import ConfigError
from intelnav.domain.slice import LayerRange
from tests.cli.conftest import STATUS, Cli, Served
from tests.fakes.control import ARRIVING, CID, HELD


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_table_has_the_chains_that_run(cli: Cli, served: Served) -> None:
    result = cli("hosting", "--node", str(served.socket))
    assert (result.returncode, result.stderr) == (0, "")
    shown = squeezed(result.stdout)
    assert f"tiny 2..4 ready 1 of 8 {CID}" in shown
    assert "big 7..14 pending 0 of 8 ?" in shown
    assert "tiny 2..4 0badcafe dddddddd eeeeeeee - 12 340" in shown
    served.control.hosted = [ARRIVING]
    assert "Chains that run" not in cli("hosting", "--node", str(served.socket)).stdout
    served.control.hosted = []
    assert cli("hosting", "--node", str(served.socket)).stdout == "This node hosts nothing.\n"


def test_json_is_what_the_node_says_also_over_tcp(cli: Cli, served: Served) -> None:
    for where in (str(served.socket), f"http://{served.address}"):
        report = json.loads(cli("hosting", "--json", "--node", where).stdout)
        assert report == {"hosting": json.loads(json.dumps([asdict(HELD), asdict(ARRIVING)]))}


@pytest.mark.parametrize("model", ["tiny", CID])
def test_leaving_says_what_still_runs_and_for_how_long_it_holds(cli: Cli, served: Served, model: str) -> None:
    result = cli("leave", model, "2..4", "--node", str(served.socket))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "tiny 2..4: draining, 1 answer still runs.\n"
        "This lasts until the config is next loaded. For good, take out of /etc/intelnav/node.yaml:\n"
        "  slices:\n"
        "  - model: tiny\n"
        "    layers: 2..4\n"
    )
    assert served.control.asked == [("leave", model, LayerRange(2, 4))]


def test_joining_shows_the_lines_that_would_keep_it(cli: Cli, served: Served) -> None:
    yaml_file = cli("join", "./m.gguf", "0..2", "--node", str(served.socket))
    served.status = STATUS | {"config": STATUS["config"] | {"file": "/n.toml"}}
    toml_file = cli("join", "tiny", "0..2", "--node", str(served.socket))
    served.status = STATUS | {"config": STATUS["config"] | {"file": None}}
    no_file = cli("join", "tiny", "0..2", "--node", str(served.socket))
    path = str(cli.home / "m.gguf")
    assert yaml_file.stdout.splitlines() == [
        f"{path} 0..2: pending.",
        "This lasts until the config is next loaded. For good, add to /etc/intelnav/node.yaml:",
        "  slices:",
        f"  - model: {path}",
        "    layers: 0..2",
    ]
    assert toml_file.stdout.splitlines()[-3:] == [
        "  [[slices]]",
        '  model = "tiny"',
        '  layers = "0..2"',
    ]
    assert "add to a config, and start the node with --config:" in no_file.stdout
    assert [asked[1] for asked in served.control.asked] == [path, "tiny", "tiny"]


@given(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1), st.booleans())
def test_the_lines_are_config_whatever_the_model_is_called(model: str, toml: bool) -> None:
    text = "\n".join(lines(model, "0..2", toml=toml))
    read = tomllib.loads(text) if toml else yaml.safe_load(text)
    assert read == {"slices": [{"model": model, "layers": "0..2"}]}


def test_json_is_the_reply(cli: Cli, served: Served) -> None:
    left = cli("leave", "tiny", "2..4", "--json", "--node", str(served.socket))
    joined = cli("join", "tiny", "0..2", "--json", "--node", str(served.socket))
    until = {"until": "the config is next loaded"}
    assert json.loads(left.stdout) == {
        "model": "tiny",
        "layers": "2..4",
        "state": "draining",
        "in_use": 1,
        **until,
    }
    assert json.loads(joined.stdout)["state"] == "pending"


def test_refusals_are_one_message(cli: Cli, served: Served) -> None:
    for command, model, layers, reason in (
        ("leave", "tiny", "0..2", "layers 0..2 of tiny are not hosted here"),
        ("join", "tiny", "2..4", "layers 2..4 of tiny are hosted already"),
    ):
        result = cli(command, model, layers, "--node", str(served.socket))
        assert (result.returncode, result.stdout, result.stderr) == (1, "", f"intelnav: {reason}\n")
    served.control.fail = ConfigError("no catalog has that model")
    assert "no catalog has" in cli("join", "x", "0..1", "--node", str(served.socket)).stderr


def test_nothing_is_steered_over_tcp(cli: Cli, served: Served) -> None:
    for command in (["leave", "tiny", "2..4"], ["join", "tiny", "0..2"], ["reload"], ["plan"], ["events"]):
        result = cli(*command, "--node", f"http://{served.address}")
        assert (result.returncode, result.stdout) == (1, "")
        assert "control.sock" in result.stderr


def test_waiting_ends_when_the_slice_is_gone(cli: Cli, served: Served) -> None:
    served.control.hosted = [replace(HELD, state="draining")]
    with cli.start("leave", "tiny", "2..4", "--wait", "--node", str(served.socket)) as process:
        assert process.stdout is not None
        assert "draining" in process.stdout.readline()
        assert process.poll() is None
        served.control.hosted = []
        rest = process.stdout.read()
        assert process.wait(10) == 0
    assert rest.splitlines()[-1] == "It is gone."


def test_waiting_fails_when_the_slice_comes_back(cli: Cli, served: Served) -> None:
    served.control.hosted = [replace(HELD, state="draining")]
    looks = 0

    def hosting() -> list[object]:
        nonlocal looks
        looks += 1
        return [replace(HELD, state="draining" if looks == 1 else "ready")]

    served.control.hosting = hosting  # type: ignore[method-assign, assignment]
    result = cli("leave", "tiny", "2..4", "--wait", "--node", str(served.socket))
    assert (result.returncode, result.stderr) == (1, "intelnav: tiny 2..4 is hosted again: ready\n")


def held(state: str, **more: object) -> dict[str, object]:
    return STATUS | {
        "slices": [STATUS["slices"][0] | {"model": "big", "layers": "0..2", "state": state, **more}]
    }


def test_waiting_for_a_slice_that_comes(cli: Cli, served: Served) -> None:
    served.status = held("fetching", progress={"total_bytes": 100, "done_bytes": 50})
    with cli.start("join", "big", "0..2", "--wait", "--json", "--node", str(served.socket)) as process:
        assert process.stdout is not None
        served.status = held("ready")
        assert json.loads(process.stdout.read())["state"] == "ready"
        assert process.wait(10) == 0


def test_waiting_for_a_slice_that_does_not_come(cli: Cli, served: Served) -> None:
    served.status = held("failed", reason="no source", next_try_seconds=2.0)
    failed = cli("join", "big", "0..2", "--wait", "--node", str(served.socket))
    assert failed.returncode == 1
    assert failed.stderr == (
        "intelnav: big 0..2 failed: no source; next try in 2 s; the node goes on trying\n"
    )
    served.status = STATUS
    gone = cli("join", "big", "0..2", "--wait", "--node", str(served.socket))
    assert (gone.returncode, gone.stderr) == (1, "intelnav: big 0..2 is not hosted any more\n")
