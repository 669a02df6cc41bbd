"""`/models` of a chat: the models here, in the swarm and in the catalog, and what can be done with one of them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from intelnav.cli.client import NodeClient, NodeError
from intelnav.cli.conversation import Conversation
from intelnav.cli.hosting import joined
from intelnav.cli.models import follow
from intelnav.cli.terminal import note, printable, say, size_text
from intelnav.domain.errors import ConfigError
from intelnav.domain.slice import LayerRange

Json = dict[str, Any]

Deed = Literal["use", "fetch", "host"]


@dataclass(frozen=True, slots=True)
class Row:
    """A model that can be chosen. `fetch` is what an import is told, None if there is nothing to fetch, for `reason`.

    `host` is what `join` is told, and `offer` the layers that it is offered.
    """

    source: Literal["local", "swarm", "catalog"]
    name: str
    cid: str | None
    about: str
    fetch: str | None
    reason: str
    host: str
    offer: str

    def __str__(self) -> str:
        return printable(f"{self.source:7} {self.name}: {self.about}", sys.stdout)


def rows(node: NodeClient) -> list[Row]:
    """Each model once: what is here first, then what the swarm serves, then the rest of the catalog."""
    here = node.library()["models"]
    try:
        swarm = node.swarm_models()
    except NodeError as error:
        print(printable(f"What the swarm serves is not known: {error}", sys.stderr), file=sys.stderr)
        swarm = []
    found = [_listed(model) for model in here if model["where"] == "local"]
    known = {row.cid for row in found}
    found += [_served(model) for model in swarm if model["cid"] not in known]
    known = {row.cid for row in found} - {None}
    return found + [
        _listed(model) for model in here if model["where"] != "local" and model["cid"] not in known
    ]


def _listed(model: Json) -> Row:
    blocks, fits = model["blocks"], model["hostable_layers"]
    have = [*(["the file"] if model["file"] else []), *model["held"]]
    parts = [size_text(model["size_bytes"]), f"{blocks} layers"]
    local = model["where"] == "local"
    if local:
        parts.append(f"here: {', '.join(have) or 'nothing'}")
    if fits is not None:
        parts.append("all of it fits" if fits >= blocks else f"{fits} layers fit")
    return Row(
        "local" if local else "catalog",
        model["name"],
        model["cid"],
        ", ".join(parts),
        None if model["file"] else model["origin"] if local else model["name"],
        "its file is here" if model["file"] else "the node knows no place that has the whole of it",
        (model["cid"] if local else None) or model["name"],
        f"0..{min(blocks, fits or blocks)}",
    )


def _served(model: Json) -> Row:
    blocks, missing = model["blocks"], model["missing"]
    lacks = f"without a host: {', '.join(missing)}" if missing else "whole"
    about = f"{size_text(model['size_bytes'])}, {blocks} layers, {model['hosts']} hosts, {lacks}"
    offer = missing[0] if missing else f"0..{blocks}"
    reason = "peers give it out in slices: host some layers"
    return Row("swarm", model["name"], model["cid"], about, None, reason, model["cid"], offer)


def choose(found: list[Row]) -> tuple[Row, Deed, str]:
    """Which model, what with it, and for `host` which layers, as picked on a terminal.

    KeyboardInterrupt or EOFError if the user thinks better of it.
    """
    from prompt_toolkit import prompt
    from prompt_toolkit.shortcuts import choice

    row = found[choice("Which model?", options=[(index, str(row)) for index, row in enumerate(found)])]
    deeds: list[tuple[Deed, str]] = [("use", "talk with it"), ("host", "host layers of it")]
    if row.fetch is not None:
        deeds.insert(1, ("fetch", "fetch the whole of it"))
    deed: Deed = choice(f"What with {printable(row.name, sys.stdout)}?", options=deeds)
    return row, deed, prompt("Layers: ", default=row.offer) if deed == "host" else ""


def picked(found: list[Row], argument: str) -> tuple[Row, Deed, str]:
    """What `N [use|fetch|host START..END]` means; ConfigError says how to write it."""
    number, _, rest = argument.partition(" ")
    deed, _, layers = rest.strip().partition(" ")
    if not (number.isascii() and number.isdecimal() and len(number) < 6 and 1 <= int(number) <= len(found)):
        raise ConfigError(f"{number[:40]!r} is no model here: write a number from 1 to {len(found)}")
    if (deed or "use") not in _DEEDS or bool(layers) != (deed == "host"):
        raise ConfigError(f"write /models {number} use, fetch, or host START..END")
    return found[int(number) - 1], deed or "use", layers.strip()  # type: ignore[return-value]  # checked above


def act(conversation: Conversation, row: Row, deed: Deed, layers: str) -> None:
    """Do it; IntelNavError if it cannot be done."""
    _DEEDS[deed](conversation, row, layers)


def _use(conversation: Conversation, row: Row, _: str) -> None:
    for served in conversation.node.served():
        if row.cid == served["cid"] or (row.cid is None and row.name == served["id"]):
            conversation.model = str(served["id"])
            note(f"You talk with {conversation.model} now.")
            return
    raise ConfigError(f"this node does not answer for {row.name}: name it under `entry` in its config")


def _fetch(conversation: Conversation, row: Row, _: str) -> None:
    if row.fetch is None:
        raise ConfigError(f"{row.name} cannot be fetched: {row.reason}")
    with conversation.node.job("/models/import", {"what": row.fetch}) as events:
        model = follow(events, False)
    print(printable(f"{model['name']} is here: {size_text(model['size_bytes'])}, {model['cid']}", sys.stdout))


def _host(conversation: Conversation, row: Row, layers: str) -> None:
    try:
        text = str(LayerRange.parse(layers))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    say(joined(conversation.node, conversation.node.join(row.host, text), row.host))


_DEEDS: dict[str, Callable[[Conversation, Row, str], None]] = {"use": _use, "fetch": _fetch, "host": _host}
