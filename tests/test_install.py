"""install.sh, as a user runs it: into a home of its own, from this checkout, without a network."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from intelnav import __version__
from tests.installing import ROOT, build_wheel, dependencies, environment
from tests.waiting import until

pytestmark = pytest.mark.timeout(400)

SCRIPT = ROOT / "install.sh"
VERSION = f"intelnav-node {__version__} is installed.\n"


@dataclass(frozen=True)
class User:
    """Who has a home and runs the script."""

    home: Path
    variables: dict[str, str]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(SCRIPT), *arguments]
        environ = self.variables | variables
        return subprocess.run(
            command, capture_output=True, text=True, env=environ, cwd=self.home.parent, timeout=300
        )

    def succeed(self, *arguments: str, **variables: str) -> str:
        """What it says on its way."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fail(self, *arguments: str, **variables: str) -> str:
        """What it complains of."""
        done = self.run(*arguments, **variables)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def output(self, program: str, *arguments: str) -> str:
        """What an installed program says."""
        command = [str(self.home / ".local/bin" / program), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=self.variables, check=True, timeout=60
        ).stdout

    @property
    def has(self) -> set[str]:
        """All files and folders of the home."""
        return {path.relative_to(self.home).as_posix() for path in self.home.rglob("*")}


@pytest.fixture
def user(tmp_path: Path) -> User:
    home = tmp_path / "home"
    home.mkdir()
    return User(home, environment(home, dependencies(tmp_path / "packages")))


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """The URL of a git repository with this checkout."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("intelnav", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-C", str(folder)]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All of it"]):
        subprocess.run([*git, *command], check=True)
    return f"file://{folder}"


@pytest.mark.appliance
def test_it_comes_and_goes(user: User, tmp_path: Path, repository: str) -> None:
    said = user.succeed()
    assert VERSION in said
    assert "four minutes" in said
    assert f'export PATH="{user.home}/.local/bin:$PATH"' in said
    assert user.output("intelnav", "--version") == f"intelnav {__version__}\n"
    assert user.output("intelnav-node", "--version") == f"intelnav-node {__version__}\n"

    # The same version again, from a wheel: what lies there is replaced all the same.
    app = user.home / ".local/share/intelnav/app"
    (module,) = app.glob("lib/*/site-packages/intelnav/__init__.py")
    module.write_text("__version__ = 'old'\n")
    wheel = build_wheel(tmp_path / "dist")
    said = user.succeed("--from", str(wheel), PATH=f"{user.home}/.local/bin:{user.variables['PATH']}")
    assert said.startswith(f"Upgrades to IntelNav from {wheel}")
    assert VERSION in said
    assert "PATH" not in said
    assert user.output("intelnav", "--version") == f"intelnav {__version__}\n"

    # And from git, while a node runs.
    data = user.home / ".local/share/intelnav"
    node = subprocess.Popen(
        [user.home / ".local/bin/intelnav-node"],
        env=user.variables | {"INTELNAV_NETWORK__LISTEN": "none"},
        stderr=subprocess.DEVNULL,
    )
    with node:
        try:
            until((data / "control.sock").exists)
            assert f"a node runs from there: stop it first (process {node.pid})" in user.fail("--uninstall")
            module.write_text("__version__ = 'old'\n")
            assert "A node of the old version still runs: restart it." in user.succeed("--from", repository)
            assert user.output("intelnav", "--version") == f"intelnav {__version__}\n"
            assert node.poll() is None
        finally:
            node.terminate()

    before = user.has
    assert "Nothing is done" in user.succeed("--uninstall", "--purge", "--dry-run")
    assert user.has == before
    key = (data / "peer.key").read_bytes()
    assert f"stay: {data}" in user.succeed("--uninstall")
    assert not app.exists()
    assert not (user.home / ".local/bin").exists()
    assert (data / "peer.key").read_bytes() == key
    user.succeed("--uninstall", "--purge")
    assert user.has == set()
    # There is nothing left to remove, and that is no error.
    user.succeed("--uninstall", "--purge")


def test_a_dry_run_says_what_would_be_done_and_does_nothing(user: User) -> None:
    said = user.succeed("--dry-run")
    assert f"Installs IntelNav from {ROOT}, for this user only" in said
    assert said.endswith("Nothing is done: --dry-run.\n")
    assert user.has == set()


def test_the_program_of_a_unit_that_is_installed_stays(user: User) -> None:
    unit = user.home / ".config/systemd/user/intelnav.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    before = user.has
    assert f"run 'intelnav service uninstall' first ({unit})" in user.fail("--uninstall", "--purge")
    assert user.has == before
    unit.unlink()
    user.succeed("--uninstall", "--purge")


@pytest.mark.appliance
def test_of_an_installation_that_fails_nothing_stays(user: User, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    # There is nowhere to take from what it needs.
    assert "hatchling" in user.fail(PYTHONPATH=str(tmp_path / "nothing"), INTELNAV_PIP_ARGS="--no-index")
    assert user.has <= {".local", ".local/share"}


def test_a_program_of_that_name_from_elsewhere_is_left_alone(user: User) -> None:
    there = user.home / ".local/bin/intelnav"
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    assert f"{there} is there already, and not from here: move it away" in user.fail()
    user.succeed("--uninstall", "--purge")
    assert there.read_text() == "mine"


def test_what_is_missing_is_named_with_its_package_and_never_installed(user: User, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "dirname", "basename", "readlink"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    for name in ("apt-get", "sudo"):
        (tools / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/used\n")
        (tools / name).chmod(0o755)
    bare = {"PATH": str(tools), "PYTHON": "python3"}
    complaint = user.fail("--from", "https://example.org/intelnav.git", **bare)
    assert "  apt-get install python3 python3-venv g++ make git\n" in complaint
    assert "Python 3.11 or later" in complaint
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tools / "python3").chmod(0o755)
    assert "  apt-get install python3 python3-venv g++ make\n" in user.fail(**bare)
    (tools / "python3").unlink()
    (tools / "python3").symlink_to(sys.executable)
    (tools / "c++").symlink_to("/bin/true")
    assert "  apt-get install make\n" in user.fail(**bare)
    (tools / "apt-get").unlink()
    complaint = user.fail(**bare)
    assert "make, for llama.cpp" in complaint
    assert "apt-get" not in complaint
    assert not (tmp_path / "used").exists()
    assert user.has == set()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--frm"], "--frm: unknown option"),
        (["--from"], "--from: say what to install"),
        (["--purge"], "--purge goes with --uninstall only"),
        (["--from", "/nowhere"], "--from /nowhere: there is no such file or folder"),
        (["--from", "/usr"], "--from /usr: is no checkout of IntelNav"),
        (["--from", "/etc/passwd"], "--from /etc/passwd: is no wheel (.whl)"),
    ],
)
def test_wrong_usage_is_refused(user: User, arguments: list[str], complaint: str) -> None:
    assert f"install.sh: {complaint}" in user.fail(*arguments)
    assert user.has == set()


def test_alone_it_asks_what_to_install(user: User, tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh"], input=SCRIPT.read_text(), capture_output=True, text=True, env=user.variables, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "this script does not lie in a checkout: say --from WHERE" in done.stderr


def test_of_a_script_that_arrives_cut_off_nothing_runs(user: User, tmp_path: Path) -> None:
    lines = SCRIPT.read_text().splitlines(keepends=True)
    assert lines[-1] == 'main "$@"\n'
    for end in range(len(lines)):
        done = subprocess.run(
            ["sh"],
            input="".join(lines[:end]),
            capture_output=True,
            text=True,
            env=user.variables,
            cwd=tmp_path,
        )
        assert done.stdout == "", end
    assert user.has == set()


def test_it_is_plain_posix_shell() -> None:
    subprocess.run(["sh", "-n", str(SCRIPT)], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([str(shellcheck), "--shell=sh", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert os.access(SCRIPT, os.X_OK)
