import json

from tests.cli.conftest import STATUS, Cli, Served


def test_tables_show_what_the_node_says(cli: Cli, served: Served) -> None:
    result = cli("status", "--node", str(served.socket))
    assert result.returncode == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for wanted in (
        f"host {STATUS['peer']}, version 1.2.3",
        "up 1 h 02 min, listens on no address, 3 sessions",
        "counter 0..8 tail failed: no [memory] left",
        "counting 8..15 ready 123 MB cpu/1",
        "eaqseize 192.0.2.7:7717",
    ):
        assert wanted in lines


def test_json_is_what_the_node_says(cli: Cli, served: Served) -> None:
    assert json.loads(cli("status", "--json", "--node", str(served.socket)).stdout) == STATUS
