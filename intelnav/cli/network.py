"""`intelnav peers` and `intelnav route`: whom a node knows, and which chain it would take."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intelnav.cli.ask import NodeOption

if TYPE_CHECKING:
    from rich.console import RenderableType

Json = dict[str, Any]

AsJson = Annotated[bool, typer.Option("--json", help="Print what the node says as JSON.")]
Count = Annotated[int, typer.Option(min=1, max=16, help="How many chains that share no peer to look for.")]

# Rows of a table for people; the DHT may know hundreds of nodes.
_SHOWN = 20


def peers(as_json: AsJson = False, node: NodeOption = None) -> None:
    """Show whom a node is connected to, and whom it knows."""
    from intelnav.cli.client import NodeClient

    with NodeClient(node) as asked:
        report = asked.peers()
    if as_json:
        print(json.dumps(report))
    else:
        show(_neighbours(report))


def route(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model that the node answers for.")],
    count: Count = 1,
    as_json: AsJson = False,
    node: NodeOption = None,
) -> None:
    """Show the chain that a question would take now. Exit code 1 if there is none."""
    from intelnav.cli.client import NodeClient

    with NodeClient(node) as asked:
        report = asked.route(model, count)
    if as_json:
        print(json.dumps(report))
    else:
        show(chains(model, report))
    if report["layers"] is not None and not report["routes"]:
        raise typer.Exit(1)


def swarm_parts(models: list[Json] | None, problem: str) -> list["RenderableType"]:
    """What the swarm serves, for people; `models` is None if that is not known, for the reason in `problem`."""
    from intelnav.cli.terminal import add_row, size_text, table

    if models is None:
        return [_line(f"What the swarm serves is not known: {problem}")]
    if not models:
        return [_line("The swarm serves no model that this node knows of.")]
    grid = table("In the swarm", "name", "size", "layers", "hosts", "without a host", "cid")
    for model in models:
        size, missing = size_text(model["size_bytes"]), ", ".join(model["missing"]) or "-"
        add_row(grid, model["name"], size, str(model["blocks"]), str(model["hosts"]), missing, model["cid"])
    return [grid]


def _neighbours(report: Json) -> list["RenderableType"]:
    from intelnav.cli.terminal import size_text

    seen = f"is seen at {report['seen_at']}" if report["seen_at"] else "has an address that no peer confirmed"
    parts: list[RenderableType] = [_line(f"{report['peer']} {seen}")]
    links = [
        (
            link["peer"][:8],
            link["address"],
            "?" if link["round_trip"] is None else f"{link['round_trip']:.1f}",
            size_text(link["bytes_sent"]),
            size_text(link["bytes_received"]),
        )
        for link in report["links"]
    ]
    parts += _part("Connected to", ("peer", "address", "round trip ms", "sent", "received"), links)
    contacts = [(contact["peer"][:8], contact["address"]) for contact in report["contacts"]]
    parts += _part(f"In touch with in the DHT: {len(contacts)}", ("peer", "address"), contacts)
    relays = [
        (relay["peer"][:8], ", ".join(relay["addresses"]), str(relay["room"]), f"{relay['load']:.0%}")
        for relay in report["relays"]
    ]
    parts += _part("Relays", ("peer", "addresses", "room", "in use"), relays)
    seeds = [(one["url"], one["state"], str(one["addresses"]), one["reason"]) for one in report["seeds"]]
    parts += _part("Seed lists", ("url", "state", "addresses", "last failure"), seeds)
    if not (links or contacts):
        parts.append(_line("It knows nobody: write an address under network.bootstrap in its config."))
    return parts


def chains(model: str, report: Json) -> list["RenderableType"]:
    """The chains over which a model would be asked, for people."""
    if report["layers"] is None:
        return [_line(f"This node runs all layers of {model} itself.")]
    if not report["routes"]:
        return [_line(f"There is no chain over layers {report['layers']} of {model}: {report['problem']}.")]
    parts: list[RenderableType] = []
    for number, chain in enumerate(report["routes"], 1):
        hops = [
            (
                hop["peer"][:8],
                hop["layers"],
                _milliseconds(hop),
                ", ".join(hop["addresses"]),
                ", ".join(f"{other['peer'][:8]} {_milliseconds(other)}" for other in hop["alternates"][:3])
                or "-",
            )
            for hop in chain["hops"]
        ]
        title = f"Chain {number}: {chain['milliseconds']:.1f} ms for a token, as predicted"
        parts += _part(title, ("peer", "layers", "ms", "addresses", "alternates"), hops)
    return parts


def _milliseconds(hop: Json) -> str:
    """The predicted time of a hop; what failures add to it stands apart, since it buys nothing."""
    penalty = f" + {hop['penalty']:.0f} for failures" if hop["penalty"] else ""
    return f"{hop['milliseconds']:.1f}{penalty}"


def _part(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list["RenderableType"]:
    """A table of the first rows; nothing if there are none."""
    from rich.console import Group
    from rich.text import Text

    from intelnav.cli.terminal import add_row, table

    if not rows:
        return []
    # Lines of their own: a table breaks its title to its own width.
    grid = table("", *columns)
    for row in rows[:_SHOWN]:
        add_row(grid, *row)
    rest = [f"and {len(rows) - _SHOWN} more; --json shows all"] if len(rows) > _SHOWN else []
    return [Group(Text(title, style="bold"), grid, *rest)]


def show(parts: list["RenderableType"]) -> None:
    """Print the parts with an empty line between each two."""
    from rich.console import Console

    out = Console(highlight=False)
    for index, part in enumerate(parts):
        out.print(*([""] if index else []), part, sep="\n")


def _line(text: str) -> str:
    from rich.markup import escape

    from intelnav.cli.terminal import printable

    return escape(printable(text, sys.stdout))
