import json

from intelnav.cli.status import state_text
from tests.cli.conftest import STATUS, Cli, Served, Starting


def test_tables_show_what_the_node_says(cli: Cli, served: Served) -> None:
    result = cli("status", "--node", str(served.socket))
    assert result.returncode == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for wanted in (
        f"host {STATUS['peer']}, version 1.2.3",
        "up 1 h 02 min, listens on no address, 3 sessions",
        "counter 0..8 tail failed: no [memory] left; next try in 4 s",
        "counting 8..15 ready yes 2 123 MB cpu/1",
        "eaqseize 192.0.2.7:7717",
    ):
        assert wanted in lines


def test_json_is_what_the_node_says(cli: Cli, served: Served) -> None:
    assert json.loads(cli("status", "--json", "--node", str(served.socket)).stdout) == STATUS


def test_a_slice_on_its_way_tells_how_far_it_is() -> None:
    progress = {
        "total_bytes": 200_000_000,
        "done_bytes": 50_000_000,
        "bytes_per_second": 12_500_000,
        "dropped": [{"source": "http://192.0.2.9:7718", "reason": "lied"}],
    }
    part = {"state": "fetching", "reason": "", "progress": progress}
    assert state_text(part) == "fetching 25 % of 200 MB at 12.5 MB/s, dropped 1 sources"
    assert state_text(part | {"state": "ready"}) == "ready"
    assert state_text(part | {"state": "failed", "reason": "no source"}) == "failed: no source"


def test_a_slice_that_failed_tells_when_it_is_tried_again() -> None:
    part = {"state": "failed", "reason": "no source", "next_try_seconds": 7.6}
    assert state_text(part) == "failed: no source; next try in 8 s"
    assert state_text(part | {"next_try_seconds": None}) == "failed: no source"


def test_a_wrong_config_shows_and_so_does_what_was_told_beside_it(cli: Cli, served: Served) -> None:
    sound = cli("status", "--node", str(served.socket)).stdout
    assert "config" not in sound
    served.status = STATUS | {
        "config": STATUS["config"] | {"valid": False, "error": "node.yaml: slices: [7] is no list"},
        "overrides": [
            {"action": "leave", "model": "tiny", "layers": "2..4"},
            {"action": "join", "model": "big", "layers": "0..7"},
        ],
        "stopping": True,
    }
    lines = cli("status", "--node", str(served.socket)).stdout.splitlines()
    assert lines[1].endswith("3 sessions, stopping")
    assert lines[2:6] == [
        "its config is wrong: node.yaml: slices: [7] is no list",
        "what counts is the config as loaded at 2026-01-02T03:04:05.000Z, generation 3",
        "left tiny 2..4 until the config is next loaded",
        "joined big 0..7 until the config is next loaded",
    ]


def test_watching_needs_a_terminal(cli: Cli, served: Served) -> None:
    result = cli("status", "--watch", "--node", str(served.socket))
    assert result.returncode == 2
    assert "draws on a terminal" in result.stderr


def test_what_is_watched_moves(pty: Starting, served: Served) -> None:
    progress = {"total_bytes": 200_000_000, "done_bytes": 50_000_000}
    slice_ = STATUS["slices"][0] | {"state": "fetching", "progress": progress}
    served.status = STATUS | {"slices": [slice_]}
    with pty("status", "--watch", "--node", str(served.socket)) as terminal:
        terminal.wait_for("fetching 25 % of 200 MB")
        terminal.wait_for("━")
        served.status = STATUS | {"slices": [slice_ | {"progress": progress | {"done_bytes": 100_000_000}}]}
        terminal.wait_for("fetching 50 % of 200 MB")
        served.status = STATUS
        terminal.wait_for("ready")
        terminal.type("\x03")
        assert terminal.process.wait(10) == 130
