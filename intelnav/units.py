"""The systemd units of a node, rendered from their one source, which the NixOS module reads, too."""

import json
from pathlib import Path
from typing import Literal

from intelnav.domain.errors import ConfigError

Kind = Literal["user", "system"]
Value = str | int | bool | list[str]
Settings = dict[str, dict[str, Value]]

SECTIONS = ("Unit", "Service", "Install")
NODE = Path("/usr/bin/intelnav-node")
CONFIG = Path("/etc/intelnav/node.yaml")


def settings(kind: Kind) -> Settings:
    """What a unit of this kind says, by section and key; what starts the node is not among it."""
    here = Path(__file__).parent
    shipped = here / "service.json"
    parts: dict[str, Settings] = json.loads(
        (shipped if shipped.is_file() else here.parent / "config/systemd/service.json").read_text("utf-8")
    )
    return {section: parts["common"].get(section, {}) | parts[kind].get(section, {}) for section in SECTIONS}


def render(kind: Kind, node: Path = NODE, config: Path = CONFIG) -> str:
    """The text of the unit that runs the program `node` with a config; both paths are absolute, else ConfigError."""
    found = settings(kind)
    # Variables are not looked for in a program's path.
    command = f"{_word(node)} --config {_word(config).replace('$', '$$')}"
    found["Service"] = {"ExecStart": command, **found["Service"]}
    return text(found)


def text(unit: Settings) -> str:
    """A unit file of all these sections."""
    return "\n".join(
        "\n".join((f"[{section}]", *(line for item in keys.items() for line in _lines(*item)), ""))
        for section, keys in unit.items()
    )


def _lines(key: str, value: Value) -> list[str]:
    """A list is one line for each of its members."""
    if isinstance(value, list):
        return [f"{key}={each}" for each in value]
    if isinstance(value, bool):
        return [f"{key}={'true' if value else 'false'}"]
    return [f"{key}={value}"]


def _word(path: Path) -> str:
    """A path as one word of a command line in a unit."""
    word = str(path)
    if not path.is_absolute():
        raise ConfigError(f"{word!r} is not absolute: a systemd unit starts in another folder")
    # Systemd takes no program with a quotation mark or a backslash in its path.
    if not word.isprintable() or set(word) & set("'\"\\"):
        raise ConfigError(
            f"{word!r} cannot stand in a systemd unit: rename it without quotation marks, backslashes and "
            "control characters"
        )
    word = word.replace("%", "%%")
    return f'"{word}"' if set(word) & set(" ;") else word
