"""What `pip install` and `pipx install` put on a machine: the wheel, and the programs that come out of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from intelnav import __version__
from tests.installing import OFFLINE, ROOT, build_wheel, dependencies, environment

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


def test_a_wheel_holds_the_programs_their_data_and_nothing_else(wheel: Path) -> None:
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "intelnav").rglob("*.py")}
    data = {f"intelnav/catalog/{path.name}" for path in (ROOT / "config/catalog").iterdir()}
    data |= {"intelnav/node.schema.json", "intelnav/service.json"}
    data |= {f"intelnav/engine/llama/native/{name}" for name in ("loop.cpp", "tap.cpp", "tap.h")}
    data.add("intelnav/engine/llama/libnative.so")
    assert "intelnav/node.py" in sources
    assert "intelnav/catalog/smollm2-135m-instruct-q4_1.yaml" in data
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    # What is compiled is for machines like this one.
    assert not wheel.name.endswith("-none-any.whl")
    information = f"intelnav-{__version__}.dist-info/"
    assert {name for name in names if not name.startswith(information)} == sources | data
    assert f"{information}licenses/LICENSE" in names


def test_without_a_compiler_it_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"CXX": "no-such-compiler -O1"}
    )
    assert done.returncode != 0
    assert "a C++ compiler, and there is no no-such-compiler: install one" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_installed_from_a_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    packages = dependencies(tmp_path / "packages")
    variables = environment(tmp_path / "home", packages)
    venv = tmp_path / "venv"

    def run(program: str, *arguments: str) -> str:
        command = [str(venv / "bin" / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    # With what it declares to need: pip fails if any of that is not among the packages.
    run("python", "-m", "pip", "install", "--quiet", *OFFLINE.split(), str(wheel))
    assert run("intelnav", "--version") == f"intelnav {__version__}\n"
    assert run("intelnav-node", "--version") == f"intelnav-node {__version__}\n"
    assert "--config FILE" in run("intelnav-node", "--help")
    asked = (
        "import intelnav, json; from intelnav.store.catalog import shipped_catalog; "
        "print(json.dumps([intelnav.__file__, [entry.name for entry in shipped_catalog().entries]]))"
    )
    file, models = json.loads(run("python", "-c", asked))
    assert Path(file).is_relative_to(venv)
    assert models == sorted(path.stem for path in (ROOT / "config/catalog").iterdir())
