import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Served


def ask(data_dir: Path) -> "subprocess.CompletedProcess[str]":
    """The check, as a container runs it."""
    environment = os.environ | {"INTELNAV_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", "intelnav.cli.health"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)


def test_a_ready_node_is_healthy(served: Served) -> None:
    done = ask(served.socket.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_node_that_is_not_ready_is_not_healthy_and_says_why(served: Served) -> None:
    served.ready = (False, "layers 8..15 are fetched")
    done = ask(served.socket.parent)
    assert done.returncode == 1
    assert "layers 8..15 are fetched" in done.stdout


def test_where_no_node_answers_there_is_no_health(tmp_path: Path) -> None:
    done = ask(tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("no node answers: ")


def test_it_imports_nothing_that_takes_time() -> None:
    program = "import sys, intelnav.cli.health; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"asyncio", "httpx", "json", "typer", "ssl"} & set(done.stdout.split())
