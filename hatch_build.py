"""Compiles the one part of IntelNav that is not Python, for the wheel or the checkout that pip installs."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = ("intelnav/engine/llama/native/tap.cpp", "intelnav/engine/llama/native/loop.cpp")
LIBRARY = "intelnav/engine/llama/libnative.so"


class Native(BuildHookInterface):  # type: ignore[type-arg]  # not at run time
    """Runs whenever pip installs or builds; needs what llama.cpp needs, a C++ compiler."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library, and have it packed unless the checkout itself is what is installed."""
        self._folder = TemporaryDirectory()
        library = Path(self._folder.name, "libnative.so")
        command = [*_compiler(), "-std=c++17", "-O3", "-shared", "-fPIC", "-o", str(library), *SOURCES]
        subprocess.run(command, cwd=self.root, check=True)
        if version == "editable":
            target = Path(self.root, LIBRARY)
            # Not written in place: a node that runs has the old one open.
            draft = target.with_name("draft.so")
            shutil.copy(library, draft)
            draft.replace(target)
        else:
            build_data["force_include"][str(library)] = LIBRARY
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing behind."""
        self._folder.cleanup()


def _compiler() -> list[str]:
    named = shlex.split(os.environ.get("CXX", ""))
    candidates = [named] if named else [["c++"], ["g++"], ["clang++"]]
    for candidate in candidates:
        if shutil.which(candidate[0]):
            return candidate
    raise SystemExit(
        f"To install IntelNav takes a C++ compiler, and there is no {candidates[0][0]}: install one."
    )
