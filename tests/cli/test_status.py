import json

from intelnav.cli.status import state_text
from tests.cli.conftest import STATUS, Cli, Served


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
