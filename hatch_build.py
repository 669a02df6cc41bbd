"""Compiles the one part of IntelNav that is not Python, for the wheel or the checkout that pip installs."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "intelnav/engine/llama/tap.cpp"
LIBRARY = "intelnav/engine/llama/libtap.so"


class Tap(BuildHookInterface):  # type: ignore[type-arg]  # not at run time
    """Runs whenever pip installs or builds; needs what llama.cpp needs, a C++ compiler."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library and have it packed."""
        named = os.environ.get("CXX")
        compiler = next(filter(shutil.which, [named] if named else ["c++", "g++", "clang++"]), None)
        if compiler is None:
            raise SystemExit(
                f"a C++ compiler is needed to install IntelNav, and there is no {named or 'c++'}: install one"
            )
        library = Path(self.root, LIBRARY)
        # Not in place: a node that runs has the old one open.
        draft = library.with_suffix(".draft")
        options = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC"]
        subprocess.run([compiler, *options, "-o", str(draft), str(Path(self.root, SOURCE))], check=True)
        draft.replace(library)
        build_data["artifacts"].append(LIBRARY)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
