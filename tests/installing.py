"""Installing this checkout somewhere else, without a network: what it needs is taken from this environment."""

import os
import site
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OFFLINE = "--no-index --no-build-isolation"
"""What makes pip take `dependencies` as they are."""


def dependencies(folder: Path) -> Path:
    """A folder for PYTHONPATH, of links to all that is installed here but IntelNav and pip."""
    folder.mkdir()
    for packages in site.getsitepackages():
        for path in Path(packages).iterdir():
            if path.suffix != ".pth" and path.name.split("-")[0].lower() not in ("intelnav", "pip"):
                (folder / path.name).symlink_to(path)
    return folder


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(home: Path, packages: Path) -> dict[str, str]:
    """The variables of a user who has nothing but a home, the system's programs and `packages`."""
    return {
        "HOME": str(home),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(packages),
        "INTELNAV_PIP_ARGS": OFFLINE,
    }
