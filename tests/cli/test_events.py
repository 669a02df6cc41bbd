import json
import signal

from intelnav.api.control import Event
from intelnav.domain.errors import ConfigError
from tests.cli.conftest import Cli, Served
from tests.fakes.control import EVENTS
from tests.waiting import until_asleep


def test_the_events_so_far(cli: Cli, served: Served) -> None:
    result = cli("events", "--node", str(served.socket), TZ="UTC")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "2026-01-02 03:04:05 config loaded\n2026-01-02 03:04:06 tiny 2..4 [ready] a worker runs\n"
    )
    later = cli("events", "--after", "3", "--json", "--node", str(served.socket))
    assert [json.loads(line) for line in later.stdout.splitlines()] == [EVENTS[1].as_json()]


def test_following_goes_on_until_the_node_stops(cli: Cli, served: Served) -> None:
    with cli.start("events", "-f", "--json", "--node", str(served.socket)) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["seq"] for _ in EVENTS] == [3, 4]
        served.wait_followed()
        served.call(lambda: served.control.tell(Event(5, 0.0, "node", "stopping")))
        assert json.loads(process.stdout.readline())["message"] == "stopping"
        assert process.poll() is None
        served.wait_followed()
        served.call(served.control.stop)
        assert process.wait(10) == 0


def test_an_interrupt_ends_following(cli: Cli, served: Served) -> None:
    with cli.start("events", "-f", "--node", str(served.socket)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        served.wait_followed()
        until_asleep(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert "Traceback" not in process.stderr.read()


def test_a_reload_says_what_came_of_it(cli: Cli, served: Served) -> None:
    result = cli("reload", "--node", str(served.socket))
    assert result.stdout == "The config is loaded and says something else than before; it is generation 4.\n"
    assert json.loads(cli("reload", "--json", "--node", str(served.socket)).stdout) == {
        "generation": 4,
        "changed": True,
    }
    served.control.fail = ConfigError("node.yaml: slices: 7 is no list")
    failed = cli("reload", "--node", str(served.socket))
    assert (failed.returncode, failed.stderr) == (1, "intelnav: node.yaml: slices: 7 is no list\n")
