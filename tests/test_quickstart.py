"""docs/quickstart.md and docs/use.md: every command in them is typed here, word for word, in one shell after the other.

What `make demo` installs is installed already: it is what runs this test. As root, the shell has a network and
processes of its own, so that the ports of the pages are free and nothing outlives it.
"""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.installing import ROOT
from tests.pages import blocks

pytestmark = pytest.mark.timeout(300)

SECONDS = 240
ALONE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
END = "kill $host $entry\n"


@pytest.fixture
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands use of a checkout, with this environment as the installed one."""
    # A socket's path may have 107 bytes.
    folder = tmp_path_factory.mktemp("q")
    (folder / "home").mkdir()
    for name in ("Makefile", "pyproject.toml", "hatch_build.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv/.installed").touch()
    return folder


def test_the_pages_work_word_for_word(checkout: Path) -> None:
    first = blocks(ROOT / "docs/quickstart.md", "sh")
    (end,) = [number for number, block in enumerate(first) if block.startswith(END)]
    (program,) = blocks(ROOT / "docs/use.md", "python")
    steps = [
        *first[:end],
        *blocks(ROOT / "docs/use.md", "sh"),
        f"python - <<'PY'\n{program}PY\n",
        "unset INTELNAV_NODE\n",
        *first[end:],
    ]
    demo, _, _, _, route, ask, look, use, api, _, stop, swarm = typed(checkout, steps)

    assert "Paris" in demo
    assert all(f" {layers} " in demo for layers in ("0..8", "8..15", "15..22", "22..30"))
    assert " 8..30 " in route
    assert "Paris" in ask
    assert "ready" in look
    assert "is seen at 127.0.0.1:" in look
    assert "tokens, " in look
    assert "smollm2" in use
    assert '"text": " Paris' in use
    assert api.count("The capital of France is Paris.") == 2
    assert stop == ""
    assert "4 nodes are up" in swarm
    assert "22..30" in swarm
    assert "is down." in swarm


def typed(folder: Path, steps: list[str]) -> list[str]:
    """What each step shows in a terminal, in which somebody greets the model once it waits for that."""
    script = folder / "script"
    mark = "-- step --"
    script.write_text("".join(f"echo '{mark}'\n{step}" for step in steps))
    alone = os.geteuid() == 0
    command = ["sh", "-ec", 'ip link set lo up; exec sh -e "$0"'] if alone else ["sh", "-e"]
    terminal, end = pty.openpty()
    os.write(terminal, b"Hello!\n/quit\n")
    with subprocess.Popen(
        [*(ALONE if alone else ()), *command, str(script)],
        cwd=folder,
        env=environment(folder),
        stdin=end,
        stdout=end,
        stderr=end,
    ) as shell:
        os.close(end)
        shown = b"".join(read(terminal, shell))
        status = shell.wait(10)
    os.close(terminal)
    text = shown.decode(errors="replace").replace("\r\n", "\n")
    logs = "\n".join(f"{log}:\n{log.read_text()}" for log in folder.rglob("*.log"))
    assert status == 0, f"{status}\n{text}\n{logs}"
    return text.split(f"{mark}\n")[1:]


def read(terminal: int, shell: "subprocess.Popen[bytes]") -> "list[bytes]":
    """What comes out of the terminal until the shell ends; it is ended if that takes too long."""
    shown: list[bytes] = []
    deadline = time.monotonic() + SECONDS
    while True:
        if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
            shell.kill()
            return [*shown, b"\n(took too long)\n"]
        try:
            data = os.read(terminal, 4096)
        except OSError:
            # That is how a terminal on Linux tells that nobody holds its other end.
            return shown
        shown.append(data)


def environment(folder: Path) -> dict[str, str]:
    """Nothing of this environment's config, and a home of its own."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("INTELNAV_", "XDG_", "MAKE"))
    }
    own = {"HOME": str(folder / "home"), "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    return kept | own | {"TERM": "dumb", "COLUMNS": "160"}
