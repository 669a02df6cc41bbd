import json
import os
from pathlib import Path

import yaml

from intelnav.config import load
from intelnav.config.reference import json_schema
from tests.cli.conftest import Cli


def test_a_right_file_is_told_to_be_right(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("role: relay\n")
    result = cli("config", "check", "a.yaml")
    assert (result.returncode, result.stdout, result.stderr) == (0, "a.yaml is valid.\n", "")
    said = json.loads(cli("config", "check", "--json", "a.yaml").stdout)
    assert said == {"file": "a.yaml", "valid": True, "error": None}


def test_a_wrong_file_is_told_what_is_wrong(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('role = "boss"\n')
    wrong = "a.toml: role = 'boss': write 'host' or 'relay'"
    result = cli("config", "check", "a.toml")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"intelnav: {wrong}\n")
    as_json = cli("config", "check", "--json", "a.toml")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout) == {"file": "a.toml", "valid": False, "error": wrong}


def test_variables_count_as_they_do_for_a_node(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("role: relay\n")
    result = cli("config", "check", "a.yaml", INTELNAV_LIMITS__SESSIONS="0")
    assert result.returncode == 1
    assert "limits.sessions = 0 (from INTELNAV_LIMITS__SESSIONS)" in result.stderr


def test_the_config_that_comes_out_is_shown_and_can_be_used(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("slices: auto\nauto: {memory: 1 GB}\n")
    environ = {"INTELNAV_LIMITS__SESSIONS": "3"}
    result = cli("config", "show", "a.yaml", **environ)
    assert result.returncode == 0
    shown = yaml.safe_load(result.stdout)
    assert (shown["slices"], shown["auto"]["memory"], shown["limits"]["sessions"]) == ("auto", 10**9, 3)
    (tmp_path / "b.yaml").write_text(result.stdout)
    home = {**os.environ, "HOME": str(tmp_path)}
    assert home["HOME"] in shown["data_dir"]
    assert load(tmp_path / "b.yaml", {}).limits.sessions == 3
    assert json.loads(cli("config", "show", "--json", "a.yaml", **environ).stdout) == shown
    assert json.loads(cli("config", "show", "--json").stdout)["slices"] == []


def test_the_schema_is_printed(cli: Cli) -> None:
    assert json.loads(cli("config", "schema").stdout) == json_schema()
