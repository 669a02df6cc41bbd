import json
import os
import pty
import signal
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import anyio
import pytest

from intelnav.api.models import Damage
from intelnav.domain.errors import Code, ContentError, PeerError
from intelnav.domain.slice import LayerRange
from tests.cli.conftest import COMMAND, Cli, Served
from tests.fakes.library import CID, LOCAL, OFFERED
from tests.fakes.network import SERVED, WHOLE
from tests.waiting import until


def test_the_table_shows_what_is_here_and_what_can_be_had(cli: Cli, served: Served) -> None:
    result = cli("models", "--node", str(served.socket))
    assert (result.returncode, result.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert f"tiny 1.2 MB 6 the file, 0..2, 2..4 all {CID}" in lines
    assert "big ? 28 - 10 layers hf://owner/repo/big.gguf" in lines
    assert "The store takes 500.0 KB of 2.0 GB." in lines


def test_json_is_what_the_node_says(cli: Cli, served: Served) -> None:
    report = json.loads(cli("models", "--json", "--node", str(served.socket)).stdout)
    assert [model["name"] for model in report["models"]] == ["tiny", "big"]
    assert (report["used_bytes"], report["max_bytes"]) == (500_000, 2_000_000_000)


def test_what_the_swarm_serves_follows_with_the_layers_that_lack_a_host(cli: Cli, served: Served) -> None:
    result = cli("models", "--node", str(served.socket))
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines.index("In the swarm") > lines.index("The store takes 500.0 KB of 2.0 GB.")
    assert f"big 280.0 MB 28 3 7..14 {SERVED.cid}" in lines
    assert f"tiny 1.2 MB 6 2 - {WHOLE.cid}" in lines
    report = json.loads(cli("models", "--json", "--node", str(served.socket)).stdout)
    assert report["swarm"] == json.loads(json.dumps([asdict(SERVED), asdict(WHOLE)]))
    assert report["swarm_problem"] == ""


def test_the_local_list_needs_no_swarm(cli: Cli, served: Served) -> None:
    served.network.models = ()
    empty = cli("models", "--node", str(served.socket))
    served.network.fail = PeerError(Code.TIMEOUT, "nobody answered")
    failed = cli("models", "--node", str(served.socket))
    report = json.loads(cli("models", "--json", "--node", str(served.socket)).stdout)
    for result, last in (
        (empty, "The swarm serves no model that this node knows of."),
        (failed, "What the swarm serves is not known: nobody answered"),
    ):
        assert (result.returncode, result.stderr) == (0, "")
        lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
        assert f"tiny 1.2 MB 6 the file, 0..2, 2..4 all {CID}" in lines
        assert lines[-1] == last
    assert len(report["models"]) == 2
    assert (report["swarm"], report["swarm_problem"]) == (None, "nobody answered")


def test_an_import_says_what_came(cli: Cli, served: Served) -> None:
    result = cli("models", "import", "big", "--node", str(served.socket))
    assert (result.returncode, result.stdout, result.stderr) == (
        0,
        f"tiny is here: 6 layers, 1.2 MB, {CID}\n",
        "",
    )
    assert served.library.asked == [("bring", "big")]


def test_a_path_is_told_in_full_and_a_name_is_not(cli: Cli, served: Served, tmp_path: Path) -> None:
    (tmp_path / "bare").touch()
    for what in ("bare", "./no/m.gguf", "~/m.gguf", "none", "hf://a/b/c.gguf", "http://h/m.gguf"):
        assert cli("models", "import", what, "--node", str(served.socket)).returncode == 0
    home = str(tmp_path)
    assert [asked[1] for asked in served.library.asked] == [
        f"{home}/bare",
        f"{home}/no/m.gguf",
        f"{home}/m.gguf",
        "none",
        "hf://a/b/c.gguf",
        "http://h/m.gguf",
    ]


def test_json_lines_tell_how_an_import_goes_on(cli: Cli, served: Served) -> None:
    served.library.steps = [anyio.Event()]
    with cli.start("models", "import", "big", "--json", "--node", str(served.socket)) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        served.set(served.library.steps[0])
        rest = [json.loads(line) for line in process.stdout]
        assert process.wait(10) == 0
    assert first == {"stage": "downloading", "done": 0, "total": 30}
    assert rest[-1]["result"]["cid"] == CID


def test_an_interrupt_cancels_the_import(cli: Cli, served: Served) -> None:
    served.library.steps = [anyio.Event()]
    with cli.start("models", "import", "big", "--json", "--node", str(served.socket)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert "Traceback" not in process.stderr.read()
    until(lambda: served.library.cancelled.is_set() and served.library.at_work == 0)


def test_a_terminal_has_a_bar(cli: Cli, served: Served) -> None:
    served.library.steps = [anyio.Event()]
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "models", "import", "big", "--node", str(served.socket)],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        env=cli.environ | {"TERM": "xterm"},
    ) as process:
        os.close(slave)
        seen = ""
        while "downloading" not in seen or "/30 bytes" not in seen:
            seen += os.read(master, 65536).decode()
        served.set(served.library.steps[0])
        assert process.wait(10) == 0
    os.close(master)


def test_a_failure_is_one_message(cli: Cli, served: Served) -> None:
    served.library.fail = ContentError("the file has another SHA-256 than was published")
    result = cli("models", "import", "big", "--node", str(served.socket))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "intelnav: the file has another SHA-256 than was published\n"


@pytest.mark.parametrize("which", ["tiny", CID])
def test_a_model_or_a_slice_of_it_is_removed(cli: Cli, served: Served, which: str) -> None:
    whole = cli("models", "rm", which, "--node", str(served.socket))
    part = cli("models", "rm", which, "2..4", "--node", str(served.socket))
    assert whole.stdout == part.stdout == "500.0 KB are free again.\n"
    assert served.library.asked == [("remove", CID, None), ("remove", CID, LayerRange(2, 4))]


def test_what_is_not_here_cannot_be_removed(cli: Cli, served: Served) -> None:
    for which, reason in (
        ("tinny", "no model 'tinny' is here; did you mean tiny?"),
        ("big", "no model 'big' is here; there are: tiny"),
        ("../x", "no model '../x' is here; there are: tiny"),
    ):
        result = cli("models", "rm", which, "--node", str(served.socket))
        assert (result.returncode, result.stderr) == (1, f"intelnav: {reason}\n")
    bad = cli("models", "rm", "tiny", "../..", "--node", str(served.socket))
    assert bad.returncode == 2
    assert "write START..END" in bad.stderr
    assert served.library.asked == []


def test_a_name_that_two_models_have_is_not_enough(cli: Cli, served: Served) -> None:
    other = "b3-" + "b" * 52
    served.library.models = (LOCAL, replace(LOCAL, cid=other), OFFERED)
    result = cli("models", "rm", "tiny", "--node", str(served.socket))
    assert result.returncode == 1
    assert f"write one of the CIDs {CID}, {other}" in result.stderr


def test_sound_models_verify(cli: Cli, served: Served) -> None:
    result = cli("models", "verify", "--node", str(served.socket))
    assert (result.returncode, result.stdout) == (0, "All is as it must be.\n")
    assert cli("models", "verify", "tiny", "--node", str(served.socket)).returncode == 0
    assert served.library.asked == [("verify", None), ("verify", CID)]


def test_damage_is_told_and_is_exit_code_1(cli: Cli, served: Served) -> None:
    served.library.damaged = (Damage(CID, "2..4", "piece 3 of blk.2 has another hash; set aside"),)
    result = cli("models", "verify", "--node", str(served.socket))
    assert result.returncode == 1
    assert result.stdout == f"2..4 of {CID}: piece 3 of blk.2 has another hash; set aside\n"
    last = cli("models", "verify", "--json", "--node", str(served.socket))
    assert last.returncode == 1
    assert json.loads(last.stdout.splitlines()[-1])["result"]["damaged"][0]["part"] == "2..4"


def test_over_tcp_models_are_listed_and_not_changed(cli: Cli, served: Served) -> None:
    where = f"http://{served.address}"
    assert cli("models", "--node", where).returncode == 0
    result = cli("models", "import", "big", "--node", where)
    assert result.returncode == 1
    assert "over the node's control socket only" in result.stderr


def test_without_a_node_the_error_says_how_to_start_one(cli: Cli) -> None:
    for command in (["models"], ["models", "import", "x"], ["models", "rm", "x"], ["models", "verify"]):
        result = cli(*command)
        assert result.returncode == 1
        assert "`intelnav init` writes a config" in result.stderr
        assert "start one with `intelnav-node --config FILE`" in result.stderr
