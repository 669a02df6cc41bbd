"""docs/docker.md: what it tells a stranger to type is typed here, word for word."""

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from tests.appliance.engine import ROOT, run
from tests.appliance.swarm import copy_files, free_port, settle

pytestmark = [pytest.mark.appliance, pytest.mark.timeout(900)]

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A checkout of this repository, where `docker compose` starts a project of its own."""
    tmp_path.chmod(0o755)
    copy_files(tmp_path, ["."])
    settle(tmp_path, f"intelnav-test-{token_hex(4)}", str(free_port()), {})
    yield tmp_path
    run("docker", "compose", "--profile", "chat", "down", "--volumes", "--timeout", "5", folder=tmp_path)


def typed(command: str, folder: Path, line: str) -> str:
    """What a command shows in a terminal in which `line` is typed."""
    terminal, end = pty.openpty()
    with subprocess.Popen(["sh", "-ec", command], cwd=folder, stdin=end, stdout=end, stderr=end) as process:
        os.close(end)
        os.write(terminal, f"{line}\n/quit\n".encode())
        shown = b""
        try:
            while data := os.read(terminal, 4096):
                shown += data
        except OSError:
            # That is how a terminal on Linux tells that nobody holds its other end.
            pass
        os.close(terminal)
        status = process.wait()
    text = shown.decode(errors="replace")
    assert status == 0, f"{command}: {status}\n{text}"
    return text


def test_the_quick_start_works_word_for_word(checkout: Path) -> None:
    commands = [
        line for block in BLOCK.findall((ROOT / "docs/docker.md").read_text()) for line in block.splitlines()
    ]
    assert len(commands) == 8
    shown = {command: typed(command, checkout, "What is the capital of France?") for command in commands}
    asked, chatted, models, route, status = (shown[command] for command in commands[1:6])
    assert " a second, 3 nodes" in asked
    assert " a second, 3 nodes" in chatted
    assert "smollm2" in models
    assert "..30" in route
    assert "host" in status
