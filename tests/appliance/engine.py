"""The Docker engine, by the command that users have."""

import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NODE = "intelnav:node"
WITH_MODEL = "intelnav:smollm2"
"""The images that `make image` builds."""


def run(*command: str, folder: Path = ROOT, stdin: str = "", seconds: float = 300) -> str:
    """What a command prints; fails with all that it said if it fails."""
    done = subprocess.run(
        command, cwd=folder, input=stdin, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def docker(*arguments: str, stdin: str = "", seconds: float = 300) -> str:
    return run("docker", *arguments, stdin=stdin, seconds=seconds)


def inspect(what: str, *kind: str) -> dict[str, Any]:
    """All that the engine knows of a container, or of an image with `image`."""
    found: list[dict[str, Any]] = json.loads(docker(*kind, "inspect", what))
    return found[0]


def logs(container: str) -> str:
    """What the container's process wrote to both its outputs."""
    command = ["docker", "logs", container]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout
