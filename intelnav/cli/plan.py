"""`intelnav plan`: what a node would do now, or what an edit of its config would lead to."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intelnav.cli.ask import NodeOption
from intelnav.domain.errors import ConfigError

if TYPE_CHECKING:
    from rich.text import Text

    from intelnav.cli.client import NodeClient

Json = dict[str, Any]

AsJson = Annotated[bool, typer.Option("--json", help="Print what the node says as JSON.")]

_SIGNS = {"add": ("+", "green"), "remove": ("-", "red"), "reload": ("~", "yellow"), "keep": ("=", "dim")}
_STYLES = {".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}


def plan(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="A config; its relative paths start where those of the node's own file do."
        ),
    ] = None,
    as_json: AsJson = False,
    node: NodeOption = None,
) -> None:
    """Show what a node would do now, or with FILE as its config. Nothing is changed."""
    from intelnav.cli.client import NodeClient
    from intelnav.cli.terminal import say

    with NodeClient(node) as asked:
        report = planned(asked, file)
    if as_json:
        print(json.dumps(report))
    else:
        say(lines(report, edited=file is not None))


def planned(node: "NodeClient", file: Path | None) -> Json:
    """The node's plan, with the config in `file` if one is given. ConfigError if that cannot be read."""
    if file is None:
        return node.plan()
    from intelnav.config.text import FILE_BYTES

    style = _STYLES.get(file.suffix.lower())
    if style is None:
        raise ConfigError(f"{file}: a config file is YAML or TOML; name it .yaml or .toml")
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise ConfigError(f"{file}: larger than {FILE_BYTES} bytes; name the right file")
        return node.plan(data.decode(), style)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; write the path of a file that can be read") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error


def lines(report: Json, *, edited: bool) -> "list[Text]":
    """A plan for people: of an edit, what it makes of each slice; then what is done and why, and what must wait."""
    from intelnav.cli.terminal import plain

    shown = []
    if edited:
        for change in report["changes"]:
            sign, style = _SIGNS.get(change["change"], ("?", ""))
            shown.append(plain(f"{sign} {_slice(change)}", style))
        if all(change["change"] == "keep" for change in report["changes"]):
            shown.append(plain("No slice is changed."))
    if report["actions"]:
        head = "The node would" if edited else "The node is about to"
        shown += [plain(""), plain(head, "bold")] if shown else [plain(head, "bold")]
        for action in report["actions"]:
            why = f": {action['reason']}" if action["reason"] else ""
            shown.append(plain(f"  {action['action']} {_slice(action)}{why}"))
    elif not edited:
        shown.append(plain("Nothing is to be done: the node is as its config says."))
    if report["restart"]:
        keys = ", ".join(report["restart"])
        shown.append(plain(f"Only a restart of the node applies: {keys}", "yellow"))
    return shown


def _slice(part: Json) -> str:
    return f"{part['model']} {part['layers'] or '(the last layer)'}"
