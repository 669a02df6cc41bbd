import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.errors import ConfigError
from intelnav.units import escaped, settings, system_unit, text, user_unit
from tests.tools import needed


def programs(folder: Path) -> Path:
    """A folder with something to execute under both names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("intelnav", "intelnav-node"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def parsed(unit: str) -> dict[str, list[str]]:
    """`Section.Key` to its lines."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line:
            key, _, value = line.partition("=")
            found.setdefault(f"{section}.{key}", []).append(value)
    return found


UNITS = {
    "user": lambda folder: user_unit(folder, Path("/home/me/node.yaml"), Path("/home/me/data/control.sock")),
    "system": lambda folder: system_unit(folder),
    "gpu": lambda folder: system_unit(folder, gpu=True),
}


def verified(unit: Path, *scope: str) -> tuple[int, str]:
    """What systemd says of a unit file."""
    analyze = needed("systemd-analyze", "systemd")
    # A user's manager would have one.
    runtime = unit.parent / "run"
    runtime.mkdir()
    result = subprocess.run(
        [analyze, *scope, "verify", unit],
        capture_output=True,
        text=True,
        timeout=50,
        env={"XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime)},
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    unit = tmp_path / "intelnav.service"
    unit.write_text(UNITS[name](programs(tmp_path / "bin")))
    assert verified(unit, *(["--user"] if name == "user" else [])) == (0, "")


def test_systemd_would_find_a_wrong_setting_and_a_missing_program(tmp_path: Path) -> None:
    unit = tmp_path / "intelnav.service"
    unit.write_text(system_unit(tmp_path / "nowhere") + "[Service]\nProtectSystm=strict\n")
    _, said = verified(unit)
    assert "ProtectSystm" in said
    assert "nowhere/intelnav-node is not executable" in said


@pytest.mark.parametrize(("gpu", "most"), [(False, 1.5), (True, 2.0)])
def test_a_system_unit_is_exposed_to_little(gpu: bool, most: float, tmp_path: Path) -> None:
    analyze = needed("systemd-analyze", "systemd")
    unit = tmp_path / "intelnav.service"
    unit.write_text(system_unit(programs(tmp_path / "bin"), gpu=gpu))
    result = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        timeout=50,
    )
    level = re.search(r"Overall exposure level for intelnav\.service: (\d+\.\d)", result.stdout)
    assert level is not None, result.stdout + result.stderr
    assert float(level[1]) <= most, result.stdout


@pytest.mark.parametrize(
    "odd", ["with space", "50%", "$HOME", 'quo"te', "quo'te", "back\\slash", "@config@", "ü;#"]
)
def test_systemd_reads_any_path(odd: str, tmp_path: Path) -> None:
    """It looks for the program, so that it says if it does not read the path as it was meant."""
    folder = programs(tmp_path / odd)
    unit = tmp_path / "intelnav.service"
    if set(odd) & set("\"'\\"):
        with pytest.raises(ConfigError, match="install intelnav in another folder"):
            system_unit(folder)
        folder = programs(tmp_path)
    unit.write_text(user_unit(folder, tmp_path / odd / "node.yaml", tmp_path / odd / "control.sock"))
    assert verified(unit, "--user") == (0, "")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_path_is_one_word_that_reads_back(name: str) -> None:
    word = escaped(Path("/") / name)
    assert not re.search(r"[\s\"';#@]", word)
    halved = word.replace("%%", "%").replace("$$", "$")
    read = re.sub(rb"\\x(..)", lambda match: bytes([int(match[1], 16)]), halved.encode())
    assert read.decode() == str(Path("/") / name)


def test_lists_are_lines_and_switches_are_words() -> None:
    unit = text(
        {"Unit": {"After": ["a", "b"]}, "Service": {"PrivateTmp": True, "ExecStart": "@bin@/x"}},
        {"bin": "/b"},
    )
    assert unit == "[Unit]\nAfter=a\nAfter=b\n\n[Service]\nPrivateTmp=true\nExecStart=/b/x\n"


def test_the_user_unit_asks_for_nothing_that_a_user_may_not(tmp_path: Path) -> None:
    unit = parsed(UNITS["user"](tmp_path))
    assert unit["Service.ExecStart"] == [f"{tmp_path}/intelnav-node --config /home/me/node.yaml"]
    assert unit["Service.ExecReload"] == [f"{tmp_path}/intelnav reload --node /home/me/data/control.sock"]
    assert unit["Install.WantedBy"] == ["default.target"]
    assert (
        not {"Service.DynamicUser", "Service.PrivateDevices", "Service.CapabilityBoundingSet"} & unit.keys()
    )


def test_a_gpu_opens_its_devices_and_nothing_else() -> None:
    cpu, gpu = settings("system"), settings("system", gpu=True)
    assert gpu["Service"].pop("DeviceAllow") == ["char-drm rw", "char-kfd rw", "char-nvidia* rw"]
    assert gpu["Service"].pop("SupplementaryGroups") == ["video", "render"]
    assert cpu["Service"].pop("PrivateDevices") is not gpu["Service"].pop("PrivateDevices")
    assert cpu["Service"].pop("MemoryDenyWriteExecute") is not gpu["Service"].pop("MemoryDenyWriteExecute")
    assert cpu == gpu
    assert settings("user", gpu=True) == settings("user")


def test_a_node_has_longer_to_leave_than_it_takes() -> None:
    from intelnav.stopping import DRAIN_SECONDS

    for kind in ("user", "system"):
        stop = settings(kind)["Service"]["TimeoutStopSec"]
        assert isinstance(stop, int)
        assert stop >= DRAIN_SECONDS + 5
