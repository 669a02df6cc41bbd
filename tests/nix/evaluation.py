"""Nix, with a store of its own, which evaluates the module on the stand-in for nixpkgs."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "/opt"
_CONFIG = """\
experimental-features = nix-command flakes
build-users-group =
sandbox = false
substituters =
"""

Json = dict[str, Any]


@dataclass(frozen=True)
class Nix:
    """Runs Nix; everything that it writes lies in `folder`."""

    folder: Path

    def __call__(self, *command: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
        environ = {
            "HOME": str(self.folder),
            "NIX_CONFIG": _CONFIG,
            "NIX_STORE_DIR": str(self.folder / "store"),
            "NIX_STATE_DIR": str(self.folder / "state"),
            "NIX_LOG_DIR": str(self.folder / "log"),
        }
        return subprocess.run(
            command, capture_output=True, text=True, timeout=50, cwd=cwd, env=os.environ | environ
        )

    def render(self, settings: Json, **options: Any) -> Json:
        """What the module makes of these settings, with its files' text in place of their paths."""
        done = self._rendered(settings, options)
        assert done.returncode == 0, done.stderr
        found: Json = json.loads(done.stdout)
        return found | {"file": Path(found["file"]).read_text()}

    def refusal(self, settings: Json, **options: Any) -> str:
        """What is said of settings that are wrong: the error, without what Nix was at."""
        done = self._rendered(settings, options)
        assert done.returncode != 0, done.stdout
        _, error, said = done.stderr.partition("error: ")
        assert error, done.stderr
        return " ".join(said.split())

    def _rendered(self, settings: Json, options: Json) -> "subprocess.CompletedProcess[str]":
        definition = {"enable": True, "settings": settings, **options}
        self.folder.mkdir(exist_ok=True)
        (self.folder / "definition.json").write_text(json.dumps(definition))
        return self(
            *(
                "nix-instantiate",
                "--eval",
                "--read-write-mode",
                "--strict",
                "--json",
                str(ROOT / "tests/nix/render.nix"),
            ),
            *("--argstr", "package", PACKAGE, "--argstr", "definition", str(self.folder / "definition.json")),
        )


def missing(programs: Sequence[str]) -> None:
    """Skip on a developer's machine, fail in CI, if a program is not there."""
    lacking = [program for program in programs if shutil.which(program) is None]
    if lacking and os.environ.get("INTELNAV_CI") != "1":
        pytest.skip(f"{', '.join(lacking)}: not installed, so that the NixOS module is not checked")
    assert not lacking, f"{', '.join(lacking)}: not installed; apt-get install nix-bin"
