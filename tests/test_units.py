import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.errors import ConfigError
from intelnav.units import Kind, render, settings

ROOT = Path(__file__).parent.parent
KINDS: tuple[Kind, ...] = ("user", "system")
EXPOSURE = 2.5


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None and os.environ.get("INTELNAV_CI") != "1":
        pytest.skip("systemd-analyze is not installed: the units are not checked")
    assert found is not None, "systemd-analyze is not installed"
    return found


def rendered(folder: Path, kind: Kind) -> Path:
    """The unit of a program that is there."""
    unit = folder / "intelnav.service"
    unit.write_text(render(kind, node=Path("/bin/true"), config=folder / "my node.yaml"))
    return unit


@pytest.mark.parametrize("kind", KINDS)
def test_systemd_understands_every_line(analyze: str, tmp_path: Path, kind: Kind) -> None:
    scope = ["--user"] if kind == "user" else []
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [analyze, *scope, "verify", rendered(tmp_path, kind)], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_system_unit_is_exposed_to_little(analyze: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(analyze, "security", "--offline=true", "--no-pager"),
            *(f"--threshold={EXPOSURE * 10:.0f}", rendered(tmp_path, "system")),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"Overall exposure level for intelnav\.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) <= EXPOSURE


def test_a_unit_that_is_open_would_be_noticed(analyze: str, tmp_path: Path) -> None:
    unit = rendered(tmp_path, "user")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE * 10:.0f}", unit],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0, done.stdout


def test_the_copy_for_packagers_is_the_system_unit() -> None:
    assert (ROOT / "config/systemd/intelnav.service").read_text() == render("system")


def test_both_kinds_share_what_is_common_and_only_the_system_unit_makes_a_user() -> None:
    user, system = settings("user"), settings("system")
    assert user["Service"].items() <= system["Service"].items()
    assert "DynamicUser" not in user["Service"]
    assert (user["Install"], system["Install"]) == (
        {"WantedBy": ["default.target"]},
        {"WantedBy": ["multi-user.target"]},
    )


def test_a_drain_ends_before_systemd_loses_patience() -> None:
    from intelnav.stopping import DRAIN_SECONDS

    patience = settings("system")["Service"]["TimeoutStopSec"]
    assert isinstance(patience, int)
    assert patience >= DRAIN_SECONDS + 5


@pytest.mark.parametrize(
    "path", ["node.yaml", "/etc/a\nExecStartPre=/bin/evil", "/etc/\x1b[2J", "/it's", "/a\\b"]
)
def test_a_path_that_cannot_stand_in_a_unit_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"absolute|cannot stand"):
        render("user", config=Path(path))


@given(
    st.text(
        st.characters(exclude_categories=["C", "Z"], exclude_characters="'\"\\", include_characters=" "),
        min_size=1,
    )
)
def test_no_path_adds_a_line(name: str) -> None:
    plain = render("user").splitlines()
    odd = render("user", config=Path("/") / name.lstrip("/")).splitlines()
    assert [line for line in odd if not line.startswith("ExecStart=")] == [
        line for line in plain if not line.startswith("ExecStart=")
    ]


@pytest.mark.parametrize("name", ["a b", "100%h", "$HOME", "semi;colon", "ü"])
def test_systemd_reads_an_odd_path_as_it_is(analyze: str, tmp_path: Path, name: str) -> None:
    # What cannot be found is named as systemd understood it.
    program = tmp_path / name
    unit = tmp_path / "intelnav.service"
    unit.write_text(render("system", node=program, config=tmp_path / name))
    missing = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert f"Command {program} is not executable" in missing.stderr
    program.symlink_to("/bin/true")
    found = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_the_wheel_carries_the_source(tmp_path: Path) -> None:
    package = tmp_path / "intelnav"
    package.mkdir()
    mapping = re.search(r'"config/systemd/service\.json" = "(.+)"', (ROOT / "pyproject.toml").read_text())
    assert mapping is not None
    shutil.copy(ROOT / "config/systemd/service.json", tmp_path / mapping[1])
    for name in ("__init__.py", "units.py", "domain"):
        (package / name).symlink_to(ROOT / "intelnav" / name)
    done = subprocess.run(
        [sys.executable, "-c", "from intelnav.units import render; print(render('system'), end='')"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert done.stdout == render("system")
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.read_string(done.stdout)
    assert parser.sections() == ["Unit", "Service", "Install"]
