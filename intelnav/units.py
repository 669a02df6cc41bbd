"""A node's systemd units: `config/systemd/service.json` as unit files. The NixOS module reads the same settings."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal

from intelnav.domain.errors import ConfigError

Kind = Literal["user", "system"]
Value = str | int | bool | list[str]
Sections = dict[str, dict[str, Value]]

NAME = "intelnav.service"


def settings(kind: Kind, *, gpu: bool = False) -> Sections:
    """What a unit says, section by section, with `@bin@` for the folder of the programs.

    A user unit has `@config@` and `@control@`, too, where its config and its control socket are.

    A system unit sees no device unless it is for a `gpu`; a user unit always sees what its user does.
    """
    shipped: dict[str, Sections] = json.loads(_file().read_text())
    parts = ["common", kind, *(["gpu"] if gpu and kind == "system" else [])]
    unit: Sections = {}
    for part in parts:
        for section, keys in shipped[part].items():
            unit[section] = unit.get(section, {}) | keys
    return unit


def user_unit(folder: Path, config: Path, control: Path) -> str:
    """The user unit that runs the programs in `folder` with a config file, and reloads it at its control socket.

    Raises ConfigError for a folder from which systemd runs nothing.
    """
    return text(
        settings("user"),
        {"bin": _program(folder), "config": escaped(config), "control": escaped(control)},
    )


def system_unit(folder: Path, *, gpu: bool = False) -> str:
    """The unit for a whole machine. It reads /etc/intelnav/node.yaml, and keeps its data in the state directory.

    Raises ConfigError for a folder from which systemd runs nothing.
    """
    return text(settings("system", gpu=gpu), {"bin": _program(folder)})


def text(unit: Sections, values: Mapping[str, str]) -> str:
    """A unit file. Each item of a list is a line of its own, as NixOS writes it."""
    lines: list[str] = []
    for section, keys in unit.items():
        lines.append(f"[{section}]")
        for key, value in keys.items():
            for item in value if isinstance(value, list) else [value]:
                written = str(item).lower() if isinstance(item, bool) else str(item)
                for name, filled in values.items():
                    written = written.replace(f"@{name}@", filled)
                lines.append(f"{key}={written}")
        lines.append("")
    return "\n".join(lines)


def escaped(path: Path) -> str:
    """A path as one word of a command in a unit file, whatever is in it."""
    doubled = str(path).replace("%", "%%").replace("$", "$$")
    return "".join(
        character if character.isalnum() or character in "/._-+:=,%$~" else _bytes(character)
        for character in doubled
    )


def _program(folder: Path) -> str:
    if any(character in "\"'\\" or not character.isprintable() for character in str(folder)):
        raise ConfigError(
            f"{folder}: systemd runs nothing with quotes, backslashes or control characters in its path; "
            "install intelnav in another folder"
        )
    # Of a command, all but the program itself is searched for variables.
    return escaped(folder).replace("$$", "$")


def _bytes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def _file() -> Path:
    """What comes with this installation, or with the checkout that it runs from."""
    package = Path(str(files("intelnav")))
    installed = package / "systemd/service.json"
    return installed if installed.is_file() else package.parent / "config/systemd/service.json"
