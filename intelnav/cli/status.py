"""`intelnav status`: what a node runs."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intelnav.cli.ask import NodeOption

if TYPE_CHECKING:
    from rich.console import RenderableType

AsJson = Annotated[bool, typer.Option("--json", help="Print what the node says as JSON.")]


def status(as_json: AsJson = False, node: NodeOption = None) -> None:
    """Show what a node runs, and whom it is connected to."""
    from rich.console import Console

    from intelnav.cli.client import NodeClient

    with NodeClient(node) as asked:
        report = asked.status()
    if as_json:
        print(json.dumps(report))
    else:
        Console(highlight=False).print(*tables(report), sep="\n\n")


def tables(report: dict[str, Any]) -> list["RenderableType"]:
    """A node's status for people: a line on the node, then a table of each kind of thing that it has."""
    from rich.markup import escape

    from intelnav.cli.terminal import table

    hours, seconds = divmod(int(report["uptime_seconds"]), 3600)
    listen = report["listen"] or "no address"
    lines: list[RenderableType] = [
        escape(
            f"{report['role']} {report['peer']}, version {report['version']}\n"
            f"up {hours} h {seconds // 60:02} min, listens on {listen}, {report['sessions']} sessions"
        )
    ]
    if report["entry"]:
        entries = table("Answers for", "model", "own layers", "head", "state")
        for entry in report["entry"]:
            entries.add_row(*map(escape, (entry["name"], entry["layers"], entry["head"], _state(entry))))
        lines.append(entries)
    if report["slices"]:
        slices = table("Hosts", "model", "layers", "state", "memory", "engine")
        for held in report["slices"]:
            memory = f"{held.get('memory_estimate_bytes', 0) / 1e6:.0f} MB"
            engine = held.get("engine_class", "")
            slices.add_row(*map(escape, (held["model"], held["layers"], _state(held), memory, engine)))
        lines.append(slices)
    if report["peers"]:
        peers = table("Connected to", "peer", "address")
        for peer in report["peers"]:
            peers.add_row(*map(escape, (peer["id"][:8], peer["address"])))
        lines.append(peers)
    return lines


def _state(part: dict[str, Any]) -> str:
    """The state with its reason, or with how far it is."""
    if part.get("reason"):
        return f"{part['state']}: {part['reason']}"
    progress = part.get("progress") or {}
    if part["state"] not in ("fetching", "importing") or not progress.get("total_bytes"):
        return str(part["state"])
    done, total = progress["done_bytes"], progress["total_bytes"]
    rate = progress.get("bytes_per_second")
    speed = f" at {rate / 1e6:.1f} MB/s" if rate else ""
    dropped = f", dropped {len(progress['dropped'])} sources" if progress.get("dropped") else ""
    return f"{part['state']} {100 * done // total} % of {total / 1e6:.0f} MB{speed}{dropped}"
