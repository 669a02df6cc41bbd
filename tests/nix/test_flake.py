"""`nix flake check`, offline: every output is evaluated, and the module's check is built."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from intelnav import __version__
from tests.nix.evaluation import ROOT, Nix, missing


@pytest.fixture
def flake(tmp_path: Path) -> Path:
    """A repository of what this one tracks, as it is now."""
    missing(["git"])
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    folder = tmp_path / "flake"
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    return folder


def check(nix: Nix, flake: Path) -> "subprocess.CompletedProcess[str]":
    stub = ("--offline", "--override-input", "nixpkgs", "path:./tests/nix/stub", "--no-write-lock-file")
    return nix("nix", "flake", "check", *stub, cwd=flake)


def test_the_flake_is_sound(nix: Nix, flake: Path) -> None:
    done = check(nix, flake)
    assert done.returncode == 0, done.stderr
    (built,) = (nix.folder / "store").glob("*-intelnav-module")
    rendered = json.loads(built.read_text())
    assert rendered["gpu"]["unit"]["Service"]["PrivateDevices"] is False
    assert f"-intelnav-{__version__}/bin/intelnav-node" in rendered["host"]["unit"]["Service"]["ExecStart"]


def test_a_module_that_does_not_hold_would_be_noticed(nix: Nix, flake: Path) -> None:
    unit = flake / "config/systemd/service.json"
    unit.write_text(unit.read_text().replace('"PrivateDevices": true', '"PrivateDevices": false'))
    done = check(nix, flake)
    assert done.returncode != 0
    assert "rendered.defaults.unit.Service.PrivateDevices" in done.stderr


def test_the_package_is_made_of_what_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package = (ROOT / "nix/package.nix").read_text()
    block = package.rpartition("dependencies = with python3Packages; [")[2].partition("]")[0]
    needed = [item.split("==")[0].split(">=")[0] for item in project["dependencies"]]
    assert sorted(block.split()) == sorted(needed)
    pin = next(item for item in project["dependencies"] if item.startswith("llama-cpp-python=="))
    assert f'version = "{pin.partition("==")[2]}"' in package
