import subprocess
import sys

import pytest

from tests.cli.conftest import Cli

HEAVY = ("httpx", "rich", "numpy", "anyio", "pydantic", "prompt_toolkit", "intelnav.engine", "intelnav.net")


def test_help_waits_for_no_heavy_import() -> None:
    program = (
        "import sys\n"
        "sys.argv = ['intelnav', '--help']\n"
        "from intelnav.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert "loaded: []" in result.stdout, result


def test_no_command_reaches_the_engine_or_the_network() -> None:
    program = (
        "import sys\n"
        "from intelnav.cli import ask, chat, client, completion, config, conversation, doctor, doctor_files\n"
        "from intelnav.cli import doctor_machine, doctor_node, events, finding, following, hosting\n"
        "from intelnav.cli import init, init_file, main, models, network, picker, plan, seeds, slash\n"
        "from intelnav.cli import status, suggestion, swarm, swarm_files, swarm_nodes, terminal\n"
        "print([name for name in sys.modules if name.startswith(('intelnav.engine', 'intelnav.net', 'llama_cpp'))])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert result.stdout == "[]\n", result


@pytest.mark.parametrize(
    "command",
    [
        "init",
        "ask",
        "chat",
        "status",
        "plan",
        "hosting",
        "leave",
        "join",
        "reload",
        "events",
        "models",
        "models import",
        "models rm",
        "models verify",
        "config check",
        "doctor",
        "config show",
        "config schema",
        "peers",
        "route",
        "seeds key",
        "seeds sign",
        "seeds show",
        "swarm up",
        "swarm ask",
        "swarm down",
        "swarm demo",
    ],
)
def test_every_command_explains_itself(cli: Cli, command: str) -> None:
    result = cli(*command.split(), "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: ")
    assert all(line.split("  ")[-1].strip() for line in result.stdout.splitlines() if line.startswith("  --"))


def test_what_went_wrong_is_one_message(cli: Cli) -> None:
    result = cli("status")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("intelnav: no node answers at ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["aks", "hi"], "No such command 'aks'"),
        (["ask", "--temperature", "hot", "hi"], "Invalid value for '--temperature'"),
        (["ask", "--max-tokens", "0", "hi"], "Invalid value for '--max-tokens'"),
        (["ask", "--raw", "--system", "Be kind.", "hi"], "--raw has no place for --system"),
        (["swarm", "ask", "--raw", "--system", "Be kind.", "hi"], "--raw has no place for --system"),
        (["ask"], "write a PROMPT, or pipe one in"),
        (["models", "import"], "Missing argument 'FILE|URL|NAME'"),
        (["init", "--role", "boss"], "Invalid value for '--role'"),
        (["init", "--bootstrap", "here"], "--bootstrap 'here' is no address"),
        (["init", "--bootstrap", "192.0.2.9:0"], "port 0 cannot be dialled"),
        (["init", "--listen", "7717"], "--listen '7717' is no address"),
        (["route"], "Missing argument 'MODEL'"),
        (["route", "m", "--count", "17"], "Invalid value for '--count'"),
        (["leave", "m"], "Missing argument 'START..END'"),
        (["join", "m", "8..2"], "the start must lie below the end"),
        (["events", "--after", "-1"], "Invalid value for '--after'"),
        (["models", "rm"], "Missing argument 'NAME|CID'"),
        (["swarm", "up", "--cuts", "a,b"], "--cuts a,b: write numbers with commas"),
        (["swarm", "up", "--dtype", "f8"], "Invalid value for '--dtype'"),
    ],
)
def test_wrong_usage_has_exit_code_2(cli: Cli, arguments: list[str], reason: str) -> None:
    result = cli(*arguments)
    assert result.returncode == 2
    assert reason in result.stderr
