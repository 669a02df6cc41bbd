"""`intelnav service`: the node as a unit of the user's own systemd."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Json = dict[str, Any]

UNIT = "intelnav.service"
MARK = (
    "# Written by `intelnav service install`. Your own settings belong in `systemctl --user edit intelnav`.\n"
)
# What systemd takes to start a node, or at most to stop one: see config/systemd/service.json.
_SECONDS = 120.0
_NO_BUS = ("Failed to connect to", "No medium found")

service = typer.Typer(help="The node as a systemd unit of this user.", no_args_is_help=True)

Config = Annotated[
    Path,
    typer.Option("--config", metavar="FILE", help="What the node runs with; `intelnav init` writes one."),
]
Print = Annotated[bool, typer.Option("--print", help="Print the unit, and change nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@service.command()
def install(config: Config = Path("node.yaml"), print_unit: Print = False) -> None:
    """Have systemd run this node now and whenever you are logged in."""
    from intelnav.config import load
    from intelnav.domain.errors import ConfigError

    if not config.is_file():
        raise ConfigError(
            f"{config}: there is no such file; write one with `intelnav init --config {config}`"
        )
    # The variables of this shell do not reach the unit.
    load(config, {})
    text = _unit(config.absolute())
    if print_unit:
        print(text, end="")
        return
    path = _path()
    _check_ours(path)
    _systemctl("show-environment")
    before = path.read_text("utf-8") if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(text, "utf-8")
    draft.replace(path)
    _systemctl("daemon-reload")
    _systemctl("enable", UNIT)
    # A node that runs with just this unit goes on.
    _systemctl("start" if before == text else "restart", UNIT)
    print(f"{path} is written and the node runs. Its log: journalctl --user --unit {UNIT}")
    if any(key.startswith("INTELNAV_") for key in os.environ):
        print(f"The INTELNAV_... variables of this shell do not count for it; write them into {config}.")
    print(_lingering(_lingers()))


@service.command()
def status(as_json: AsJson = False) -> None:
    """Show whether systemd runs the node, and what the node says of itself."""
    if as_json:
        print(json.dumps(_found()))
    else:
        print(report())


@service.command()
def uninstall() -> None:
    """Stop the node and take the unit away; its config and its data stay."""
    path = _path()
    if not path.exists():
        print(f"{path} is not there: nothing is to be taken away.")
        return
    _check_ours(path)
    _systemctl("disable", "--now", UNIT)
    path.unlink()
    _systemctl("daemon-reload")
    print(f"The node is stopped and {path} is removed. Its config and its data are still there.")


def report() -> str:
    """The state of the unit, for people; IntelNavError if systemd cannot be asked."""
    found = _found()
    if not found["installed"]:
        return f"{_path()} is not there: `intelnav service install` writes it."
    lines = [f"{found['unit']}: {found['state']} ({found['detail']}), {found['enabled']}"]
    if found["pid"]:
        lines.append(
            f"process {found['pid']}, {found['restarts']} restarts: {found['says'] or 'no status yet'}"
        )
    elif found["result"] != "success":
        lines.append(f"it ended with {found['result']}; its log: journalctl --user --unit {UNIT}")
    lines.append(_lingering(found["lingers"]))
    return "\n".join(lines)


def _found() -> Json:
    """What systemd knows; `lingers` is None where nobody can tell."""
    keys = "LoadState,ActiveState,SubState,UnitFileState,FragmentPath,MainPID,NRestarts,Result,StatusText"
    shown = _systemctl("show", UNIT, f"--property={keys}")
    unit = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return {
        "installed": unit.get("LoadState") not in (None, "not-found"),
        "unit": unit.get("FragmentPath", ""),
        "state": unit.get("ActiveState", ""),
        "detail": unit.get("SubState", ""),
        "enabled": unit.get("UnitFileState", ""),
        "pid": int(unit.get("MainPID") or 0) or None,
        "restarts": int(unit.get("NRestarts") or 0),
        "result": unit.get("Result", ""),
        "says": unit.get("StatusText", ""),
        "lingers": _lingers(),
    }


def _unit(config: Path) -> str:
    """The unit of the node program that belongs to this command."""
    from intelnav.domain.errors import ConfigError
    from intelnav.units import render

    node = Path(sys.executable).with_name("intelnav-node")
    if not node.is_file():
        raise ConfigError(f"{node} is not there: install IntelNav with pipx or pip, so that it is")
    return MARK + render("user", node=node, config=config)


def _path() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(folder) if folder.startswith("/") else Path.home() / ".config") / "systemd/user" / UNIT


def _check_ours(path: Path) -> None:
    """ConfigError if somebody else wrote the unit."""
    from intelnav.domain.errors import ConfigError

    if path.exists() and not path.read_text("utf-8", errors="replace").startswith(MARK):
        raise ConfigError(f"{path} was not written by `intelnav service install`: move it away first")


def _systemctl(*arguments: str) -> str:
    """What the user's systemd answers; ConfigError says why it does not."""
    import subprocess

    from intelnav.domain.errors import ConfigError

    command = ["systemctl", "--user", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, env=os.environ | {"LC_ALL": "C"}
        )
    except FileNotFoundError:
        raise ConfigError(
            "there is no systemctl: without systemd, run `intelnav-node --config FILE` by what starts services here"
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{' '.join(command)}: no end after {_SECONDS:.0f} s") from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.strip() or f"exit status {done.returncode}"
    if any(sign in said for sign in _NO_BUS):
        raise ConfigError(
            f"this user has no running systemd ({said.splitlines()[0]}): log in as the user itself, not by su or "
            "sudo, or let it run without a login: sudo loginctl enable-linger USER"
        )
    raise ConfigError(f"{' '.join(command)}: {said}; the log: journalctl --user --unit {UNIT}")


def _lingers() -> bool | None:
    """Whether this user's systemd runs without a login; None where nobody can tell."""
    import subprocess

    command = ["loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip())


def _lingering(lingers: bool | None) -> str:
    if lingers:
        return "It lingers: it runs from the start of the machine, whether you are logged in or not."
    return (
        "It runs while you are logged in. To have it run from the start of the machine on, also without you: "
        "loginctl enable-linger"
    )
