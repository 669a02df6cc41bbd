"""`intelnav swarm`, as a user runs it: real nodes, the embedded model."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from intelnav.cli.swarm_files import Swarm
from tests.cli.conftest import Cli
from tests.models import tiny_model
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

QUESTION = "What is the capital of France?", "--system", "You are a helpful assistant."
PROMPT = "The capital of France is"


@dataclass(frozen=True)
class Sandbox:
    """A swarm in a folder of its own, and the command to talk to it."""

    cli: Cli
    root: Path

    def run(self, command: str, *arguments: str) -> str:
        """Output of a `swarm` command that succeeds."""
        result = self.cli("swarm", command, "--root", str(self.root), *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def ask(self, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run("ask", *arguments, "--json"))
        return answer

    def processes(self) -> list[psutil.Process]:
        """Nodes and workers."""
        swarm = Swarm.load(self.root)
        return (
            [process for member in swarm.members for process in member.processes()]
            if swarm is not None
            else []
        )


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """`intelnav` with a home of its own."""
    return Cli(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def swarm(command: Cli) -> Iterator[Sandbox]:
    """Four nodes with the embedded model, at the usual place."""
    sandbox = Sandbox(command, command.home / ".local/state/intelnav/swarm")
    started = command("swarm", "up", "--threads", "1", "--dtype", "f32")
    assert started.returncode == 0, started.stderr
    assert started.stderr.splitlines()[0].startswith(
        "0 of 4 nodes are ready, loading entry (0..8), peer-1 (8..15)"
    )
    assert started.stderr.splitlines()[-1] == "4 nodes are ready"
    assert "4 nodes are up" in started.stdout
    yield sandbox
    command("swarm", "down")
    assert sandbox.processes() == []


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Sandbox]:
    """A place for a swarm with a tiny model."""
    tiny_model(tmp_path / "tiny.gguf", blocks=4)
    sandbox = Sandbox(Cli(tmp_path), tmp_path / "root")
    yield sandbox
    sandbox.cli("swarm", "down", "--root", str(sandbox.root))


def test_the_swarm_knows_the_capital_of_france(swarm: Sandbox) -> None:
    answer = swarm.ask(*QUESTION, "--temperature", "0", "--max-tokens", "40")
    assert "Paris" in answer["text"]
    assert set(answer) == {"text", "tokens", "finish_reason", "chain", "timing"}
    assert answer["finish_reason"] in ("stop", "length")
    assert 0 < len(answer["tokens"]) <= 40
    assert all(isinstance(token, int) for token in answer["tokens"])
    assert [hop["layers"] for hop in answer["chain"]] == ["0..8", "8..15", "15..22", "22..30"]
    nodes = json.loads(swarm.run("status", "--json"))["nodes"]
    assert [hop["peer"] for hop in answer["chain"]] == [node["peer"] for node in nodes]
    assert all(hop["milliseconds"] > 0 for hop in answer["chain"])
    assert set(answer["timing"]) == {"open", "first_token", "total", "tokens_per_second"}


def test_a_raw_prompt_is_continued_and_a_question_is_answered(swarm: Sandbox) -> None:
    settings = "--temperature", "0", "--max-tokens", "12"
    raw = swarm.ask(PROMPT, "--raw", *settings)
    assert raw["finish_reason"] == "length"
    assert len(raw["tokens"]) == 12
    assert swarm.ask(PROMPT, "--raw", *settings)["tokens"] == raw["tokens"]
    assert swarm.ask(PROMPT, *settings)["tokens"] != raw["tokens"]


def test_a_seed_repeats_a_sampled_answer(swarm: Sandbox) -> None:
    settings = "--raw", "--temperature", "1", "--max-tokens", "12"
    one = swarm.ask(PROMPT, *settings, "--seed", "1")["tokens"]
    assert swarm.ask(PROMPT, *settings, "--seed", "1")["tokens"] == one
    assert swarm.ask(PROMPT, *settings, "--seed", "2")["tokens"] != one


def test_text_is_printed_as_it_is(swarm: Sandbox) -> None:
    settings = PROMPT, "--raw", "--temperature", "0", "--max-tokens", "12"
    assert swarm.run("ask", *settings) == swarm.ask(*settings)["text"] + "\n"


def test_every_command_of_the_client_works_on_the_entry(swarm: Sandbox) -> None:
    entry = str(swarm.root / "entry")
    assert '"role": "host"' in swarm.cli("status", "--json", "--node", entry).stdout
    assert "0..8" in swarm.cli("status", "--node", entry).stdout
    question, *system = QUESTION
    assert "Paris" in swarm.cli("ask", "--node", entry, "--temperature", "0", *system, stdin=question).stdout
    assert swarm.cli("chat", "--node", entry, "--max-tokens", "4", stdin="Hello!\n").returncode == 0


def test_the_status_shows_each_node(swarm: Sandbox) -> None:
    nodes = json.loads(swarm.run("status", "--json"))["nodes"]
    assert [(node["name"], node["layers"], node["state"]) for node in nodes] == [
        ("entry", "0..8", "ready"),
        ("peer-1", "8..15", "ready"),
        ("peer-2", "15..22", "ready"),
        ("peer-3", "22..30", "ready"),
    ]
    assert len({node["listen"] for node in nodes}) == 4
    table = swarm.run("status")
    assert all(f"{node['peer'][:8]} " in table for node in nodes)
    assert table.count("ready") == 4


def test_a_second_up_in_the_same_place_is_refused_and_disturbs_nothing(swarm: Sandbox) -> None:
    before = {process.pid for process in swarm.processes()}
    result = swarm.cli("swarm", "up")
    assert result.returncode == 1
    assert f"a swarm runs already in {swarm.root}: end it with `intelnav swarm down`" in result.stderr
    assert {process.pid for process in swarm.processes()} == before


def test_an_interrupt_ends_the_answer_and_the_swarm_goes_on(swarm: Sandbox) -> None:
    process = swarm.cli.start("swarm", "ask", "--raw", "--temperature", "0", "--max-tokens", "2000", PROMPT)
    with process:
        assert process.stdout is not None
        assert process.stdout.read(10)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    status = ["status", "--json", "--node", str(swarm.root / "peer-3")]
    until(lambda: json.loads(swarm.cli(*status).stdout)["sessions"] == 0)
    assert swarm.ask(PROMPT, "--raw", "--max-tokens", "2")["finish_reason"] == "length"


def test_a_second_swarm_lives_beside_the_first_and_ends_alone(swarm: Sandbox, tiny: Sandbox) -> None:
    first = {process.pid for process in swarm.processes()}
    tiny.run(
        "up",
        "--model",
        str(tiny.root.parent / "tiny.gguf"),
        "--cuts",
        "1,3",
        "--head",
        "entry",
        "--threads",
        "1",
    )
    answer = tiny.ask("abc", "--raw", "--max-tokens", "4", "--temperature", "0")
    assert [hop["layers"] for hop in answer["chain"]][:3] == ["0..1", "1..3", "3..4"]
    processes = tiny.processes()
    assert len(processes) >= 6
    assert tiny.run("down") == f"The swarm in {tiny.root} is down.\n"
    assert not any(_runs(process) for process in processes)
    assert list(tiny.root.glob("*/control.sock")) == []
    assert {process.pid for process in swarm.processes()} == first
    assert tiny.run("down") == f"Nothing runs in {tiny.root}.\n"


def test_a_node_that_was_killed_is_shown_and_the_rest_still_ends(tiny: Sandbox) -> None:
    tiny.run("up", "--model", str(tiny.root.parent / "tiny.gguf"), "--nodes", "2", "--threads", "1")
    processes = tiny.processes()
    swarm = Swarm.load(tiny.root)
    assert swarm is not None
    psutil.Process(swarm.members[1].pid).kill()
    until(lambda: not swarm.members[1].processes())
    states = [node["state"] for node in json.loads(tiny.run("status", "--json"))["nodes"]]
    assert states == ["ready", "stopped"]
    tiny.run("down")
    assert not any(_runs(process) for process in processes)


def test_an_up_that_is_interrupted_leaves_nothing(tiny: Sandbox) -> None:
    model = str(tiny.root.parent / "tiny.gguf")
    with tiny.cli.start("swarm", "up", "--model", model, "--nodes", "2", "--root", str(tiny.root)) as process:
        until(lambda: len(tiny.processes()) > 0)
        seen = tiny.processes()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert not any(_runs(process) for process in seen)
    assert Swarm.load(tiny.root) is None


def test_commands_without_a_swarm_say_how_to_start_one(tiny: Sandbox) -> None:
    for arguments in (["ask", "hi"], ["status"]):
        result = tiny.cli("swarm", *arguments, "--root", str(tiny.root))
        assert result.returncode == 1
        assert f"there is no swarm in {tiny.root}: start one with `intelnav swarm up`" in result.stderr


def test_the_demo_answers_and_leaves_nothing(tmp_path: Path) -> None:
    tmp = tmp_path / "t"
    tmp.mkdir()
    result = Cli(tmp_path)("swarm", "demo", TMPDIR=str(tmp))
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout
    assert "ms per token" in result.stdout
    for layers in ("0..8", "8..15", "15..22", "22..30"):
        assert f" {layers} " in result.stdout
    assert list(tmp.iterdir()) == []


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
