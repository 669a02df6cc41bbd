"""A Debian of its own with a real systemd as its first process, in which a real node is installed."""

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import until

ROOT = Path(__file__).parent.parent.parent
# With all the libraries that another build of Python links with.
PACKAGES = "systemd,systemd-sysv,dbus,libpam-systemd,python3,libgomp1,libstdc++6"
# As they are inside. A home is out of reach for the unit, and this Python may lie in one.
BIN = Path("/opt/bin")
NODE = BIN / "intelnav-node"
COMMAND = BIN / "intelnav"
CONTROL = "/var/lib/intelnav/control.sock"
_LAUNCH = """#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/test:/opt/source:/opt/packages PYTHONDONTWRITEBYTECODE=1
exec /opt/bin/python -m {module} "$@"
"""
_ASK = f"""
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({CONTROL!r})
verb, path, body = sys.argv[1], sys.argv[2], sys.argv[3].encode()
head = f"{{verb}} {{path}} HTTP/1.1\\r\\nHost: node\\r\\nConnection: close\\r\\nContent-Type: application/json\\r\\n"
link.sendall(head.encode() + b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
reply = b"".join(iter(lambda: link.recv(65536), b""))
sys.stdout.write(reply.partition(b"\\r\\n\\r\\n")[2].decode())
"""


# Python runs this before all else: the node's own loop is then to be hung, for good, by a signal.
_HANG = """
import signal, time
signal.signal(signal.SIGUSR2, lambda *_: time.sleep(3600))
"""


def make_tree(tree: Path) -> None:
    """The machine's files, from Debian's packages, with what starts a node; takes half a minute."""
    missing = [name for name in ("mmdebstrap", "systemd-nspawn", "nsenter") if shutil.which(name) is None]
    assert not missing, f"{', '.join(missing)}: apt-get install mmdebstrap systemd-container util-linux"
    done = subprocess.run(
        ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", tree],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (tree / BIN.relative_to("/")).mkdir()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (tree / BIN.relative_to("/") / "python").symlink_to(f"/opt/python/bin/python{version}")
    for program, module in ((NODE, "intelnav.start"), (COMMAND, "intelnav.cli.main")):
        launcher = tree / program.relative_to("/")
        launcher.write_text(_LAUNCH.format(module=module))
        launcher.chmod(0o755)
    (tree / "opt/ask.py").write_text(_ASK)
    (tree / "opt/test").mkdir()
    (tree / "opt/test/sitecustomize.py").write_text(_HANG)


class Machine:
    """A machine that runs; `pid` is its first process as seen from here."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints in the machine."""
        # Nothing of the environment here, which may name files that are not there.
        inside = ["nsenter", "-t", str(self._pid), "-a", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        done = subprocess.run([*inside, *command], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def show(self, *properties: str) -> dict[str, str]:
        """What systemd knows of the node's unit."""
        shown = self.run("systemctl", "show", "intelnav.service", f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in shown.splitlines())

    def until(self, seconds: float = 30, **wanted: str) -> None:
        """Return once the unit's properties are so; fail with the journal if they do not come to it."""
        try:
            until(lambda: self.show(*wanted) == wanted, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {wanted}, {self.show(*wanted)}\n{self.journal()}") from None

    def signal(self, name: str) -> None:
        """Send a signal to the node's main process."""
        self.run("sh", "-c", f"kill -{name} {self.show('MainPID')['MainPID']}")

    def ask(self, verb: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the node answers over its control socket."""
        text = json.dumps(body) if body is not None else ""
        answer: dict[str, Any] = json.loads(self.run("python3", "/opt/ask.py", verb, path, text))
        return answer

    def journal(self) -> str:
        """What systemd, that of a user included, and the nodes wrote."""
        wrote = ("--identifier=systemd", "--identifier=intelnav-node")
        return self.run("journalctl", "--no-pager", *wrote, check=False)


@contextmanager
def booted(tree: Path) -> Iterator[Machine]:
    """The machine, up; it has no network but its own loopback."""
    inside = {
        sys.base_prefix: "/opt/python",
        sysconfig.get_path("purelib"): "/opt/packages",
        ROOT: "/opt/source",
    }
    command = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--private-network"]
    command += [f"--directory={tree}", f"--machine={tree.name}", "--console=pipe"]
    command += [f"--bind-ro={here}:{there}" for here, there in inside.items()]
    with (tree.parent / "console").open("wb") as console:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
    try:
        until(lambda: process.poll() is not None or bool(psutil.Process(process.pid).children()))
        assert process.poll() is None, (tree.parent / "console").read_text()
        (init,) = psutil.Process(process.pid).children()
        machine = Machine(init.pid)
        until(lambda: machine.run("systemctl", "is-system-running", check=False).strip() == "running")
        yield machine
    finally:
        # Once to halt it, once more for at once.
        for _ in range(2):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        process.wait(60)
