import json
import os
import pty
import subprocess
from dataclasses import asdict, replace

from intelnav.api.network import Contact, Link
from tests.cli.conftest import COMMAND, Cli, Served
from tests.fakes.network import AT_HOME, BROKEN, FAR, NEAR, NEIGHBOURS, OWN, ROUTED, hop


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_peers_shows_links_contacts_relays_and_seed_lists(cli: Cli, served: Served) -> None:
    result = cli("peers", "--node", str(served.socket))
    assert (result.returncode, result.stderr) == (0, "")
    assert lines(result.stdout) == [
        f"{OWN} is seen at 192.0.2.1:7717",
        "",
        "Connected to",
        "peer address round trip ms sent received",
        "bbbbbbbb 192.0.2.7:7717 12.3 2.0 MB 3.5 KB",
        "cccccccc 192.0.2.8:7717 ? 0 B 0 B",
        "",
        "In touch with in the DHT: 2",
        "peer address",
        "bbbbbbbb 192.0.2.7:7717",
        "cccccccc [2001:db8::8]:7717",
        "",
        "Relays",
        "peer addresses room in use",
        "cccccccc 192.0.2.8:7717, [2001:db8::8]:7717 8 25%",
        "",
        "Seed lists",
        "url state addresses last failure",
        "https://example.org/intelnav.seeds stale 3 the server answered with HTTP 500",
    ]


def test_who_knows_nobody_is_told_what_to_do(cli: Cli, served: Served) -> None:
    served.network.neighbours = replace(NEIGHBOURS, seen_at=None, links=(), contacts=(), relays=(), seeds=())
    result = cli("peers", "--node", str(served.socket))
    assert lines(result.stdout) == [
        f"{OWN} has an address that no peer confirmed",
        "",
        "It knows nobody: write an address under network.bootstrap in its config.",
    ]


def test_a_long_list_is_cut_for_people_and_whole_in_json(cli: Cli, served: Served) -> None:
    many = tuple(Contact(NEAR, f"192.0.2.{number}:7717") for number in range(33))
    served.network.neighbours = replace(NEIGHBOURS, contacts=many)
    text = cli("peers", "--node", str(served.socket)).stdout
    assert "In touch with in the DHT: 33" in text
    assert "192.0.2.19:7717" in text
    assert "192.0.2.20:7717" not in text
    assert "and 13 more; --json shows all" in text
    report = json.loads(cli("peers", "--json", "--node", str(served.socket)).stdout)
    assert report == json.loads(json.dumps(asdict(served.network.neighbours)))


def test_a_chain_is_shown_with_times_and_alternates(cli: Cli, served: Served) -> None:
    result = cli("route", "counting", "--count", "2", "--node", str(served.socket))
    assert (result.returncode, result.stderr) == (0, "")
    assert lines(result.stdout) == [
        "Chain 1: 61.5 ms for a token, as predicted",
        "peer layers ms addresses alternates",
        "bbbbbbbb 8..15 20.2 192.0.2.7:7717 cccccccc 33.0",
        "cccccccc 15..30 41.2 192.0.2.7:7717 -",
    ]
    assert served.network.asked == [("counting", 2)]
    as_json = cli("route", "counting", "--json", "--node", str(served.socket))
    assert (as_json.returncode, json.loads(as_json.stdout)) == (0, ROUTED)


def test_every_chain_and_what_failures_cost_is_shown(cli: Cli, served: Served) -> None:
    late = {"milliseconds": 80.0, "hops": [hop(FAR, "8..30", 80.0, penalty=250.0, alternates=[])]}
    served.network.routed = ROUTED | {"routes": [*ROUTED["routes"], late]}
    shown = lines(cli("route", "counting", "--node", str(served.socket)).stdout)
    assert "Chain 2: 80.0 ms for a token, as predicted" in shown
    assert "cccccccc 8..30 80.0 + 250 for failures 192.0.2.7:7717 -" in shown


def test_without_a_chain_it_says_which_layers_are_missing(cli: Cli, served: Served) -> None:
    served.network.routed = BROKEN
    result = cli("route", "counting", "--node", str(served.socket))
    assert (result.returncode, result.stderr) == (1, "")
    assert "There is no chain over layers 8..30 of counting" in result.stdout
    assert "no peer can be reached that hosts layers 8..15, 22..30." in " ".join(lines(result.stdout))
    as_json = cli("route", "counting", "--json", "--node", str(served.socket))
    assert (as_json.returncode, json.loads(as_json.stdout)) == (1, BROKEN)


def test_who_runs_all_layers_needs_no_chain(cli: Cli, served: Served) -> None:
    served.network.routed = AT_HOME
    result = cli("route", "counting", "--node", str(served.socket))
    assert (result.returncode, result.stdout) == (0, "This node runs all layers of counting itself.\n")


def test_a_model_that_the_node_does_not_answer_for_is_an_error(cli: Cli, served: Served) -> None:
    for name in ("other", "owner/other", "../x", "?count=3", "a b"):
        result = cli("route", name, "--node", str(served.socket))
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"intelnav: model {name!r} is not served here; served: counting\n"


def test_what_peers_say_cannot_write_to_the_terminal(cli: Cli, served: Served) -> None:
    links = (Link(NEAR, "\x1b[2J[red]192.0.2.7[/red]:7717", None, 0, 0),)
    served.network.neighbours = replace(NEIGHBOURS, links=links)
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "peers", "--node", str(served.socket)],
        stdout=terminal,
        stderr=subprocess.PIPE,
        env=cli.environ | {"TERM": "xterm", "NO_COLOR": "1"},
    ) as process:
        os.close(terminal)
        seen = b""
        while b"last failure" not in seen:
            seen += os.read(main, 65536)
        assert process.wait(10) == 0
    os.close(main)
    assert b"[2J[red]192.0.2.7[/red]:7717" in seen
    assert b"\x1b[2J" not in seen


def test_without_a_node_it_says_how_to_contribute(cli: Cli) -> None:
    for command in (["peers"], ["route", "any"], ["ask", "hi"], ["status"], ["chat"]):
        result = cli(*command)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("intelnav: no node answers at ")
        assert "Whoever asks also hosts or relays: `intelnav init` writes a config" in result.stderr
        assert "`intelnav-node --config FILE`" in result.stderr
        assert result.stderr.count("\n") == 1
