"""Programs that a developer's machine may lack: a test without them is skipped there, and fails in CI."""

import os
import shutil

import pytest


def needed(program: str, package: str) -> str:
    """The path of a program that Debian's `package` brings."""
    found = shutil.which(program)
    if found is not None:
        return found
    reason = f"{program} is not installed here; apt-get install {package} brings it"
    if os.environ.get("INTELNAV_CI"):
        pytest.fail(reason)
    pytest.skip(reason)
