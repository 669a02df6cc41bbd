"""`intelnav status`: what a node runs."""

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intelnav.cli.ask import NodeOption

if TYPE_CHECKING:
    from rich.console import RenderableType

Json = dict[str, Any]

WATCH_SECONDS = 0.5

AsJson = Annotated[bool, typer.Option("--json", help="Print what the node says as JSON.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Keep it on the terminal as it changes.")]


def status(as_json: AsJson = False, watch: Watch = False, node: NodeOption = None) -> None:
    """Show what a node runs, and whom it is connected to."""
    from intelnav.cli.client import NodeClient
    from intelnav.cli.terminal import say

    if watch and (as_json or not sys.stdout.isatty()):
        raise typer.BadParameter(
            "--watch draws on a terminal; for programs there is `intelnav events --json`"
        )
    with NodeClient(node) as asked:
        if watch:
            from rich.console import Console, Group
            from rich.live import Live

            with Live(console=Console(highlight=False), auto_refresh=False) as screen:
                while True:
                    screen.update(Group(*tables(asked.status(), bars=True)), refresh=True)
                    time.sleep(WATCH_SECONDS)
        report = asked.status()
    if as_json:
        print(json.dumps(report))
    else:
        say(tables(report))


def tables(report: Json, *, bars: bool = False) -> list["RenderableType"]:
    """A node's status for people: lines on the node, then a table of each kind of thing that it has."""
    from intelnav.cli.terminal import add_row, plain, table

    hours, seconds = divmod(int(report["uptime_seconds"]), 3600)
    listen = report["listen"] or "no address"
    lines: list[RenderableType] = [
        plain(f"{report['role']} {report['peer']}, version {report['version']}"),
        plain(
            f"up {hours} h {seconds // 60:02} min, listens on {listen}, {report['sessions']} sessions"
            + (", stopping" if report.get("stopping") else "")
        ),
        *_config_lines(report),
    ]
    if report["entry"]:
        entries = table("Answers for", "model", "own layers", "head", "state")
        for entry in report["entry"]:
            add_row(entries, entry["name"], entry["layers"], entry["head"], state_text(entry))
        lines += [plain(""), entries]
    if report["slices"]:
        slices = table("Hosts", "model", "layers", "state", "announced", "in use", "memory", "engine")
        for held in report["slices"]:
            memory = f"{held.get('memory_estimate_bytes', 0) / 1e6:.0f} MB"
            use = str(held.get("in_use", "?"))
            announced = {True: "yes", False: "no"}.get(held.get("announced"), "?")
            engine = held.get("engine_class", "")
            add_row(slices, held["model"], held["layers"], state_text(held), announced, use, memory, engine)
        lines += [plain(""), slices]
        if bars:
            lines += _bars(report["slices"])
    if report["peers"]:
        peers = table("Connected to", "peer", "address")
        for peer in report["peers"]:
            add_row(peers, peer["id"][:8], peer["address"])
        lines += [plain(""), peers]
    return lines


def state_text(part: Json) -> str:
    """The state with its reason, with when it is tried again, or with how far it is."""
    if part.get("reason"):
        wait = part.get("next_try_seconds")
        again = f"; next try in {wait:.0f} s" if wait is not None else ""
        return f"{part['state']}: {part['reason']}{again}"
    progress = part.get("progress") or {}
    if part["state"] not in ("fetching", "importing") or not progress.get("total_bytes"):
        return str(part["state"])
    done, total = progress["done_bytes"], progress["total_bytes"]
    rate = progress.get("bytes_per_second")
    speed = f" at {rate / 1e6:.1f} MB/s" if rate else ""
    dropped = f", dropped {len(progress['dropped'])} sources" if progress.get("dropped") else ""
    return f"{part['state']} {100 * done // total} % of {total / 1e6:.0f} MB{speed}{dropped}"


def _config_lines(report: Json) -> list["RenderableType"]:
    """What is to be said of the config: that its file is wrong, and what was told the node beside it."""
    from intelnav.cli.terminal import plain

    lines: list[RenderableType] = []
    config = report.get("config") or {}
    if not config.get("valid", True):
        since = config.get("loaded_at")
        lines += [
            plain(f"its config is wrong: {config['error']}", "red"),
            plain(f"what counts is the config as loaded at {since}, generation {config['generation']}"),
        ]
    for override in report.get("overrides", ()):
        done = {"leave": "left", "join": "joined"}.get(override["action"], override["action"])
        lines.append(
            plain(f"{done} {override['model']} {override['layers']} until the config is next loaded")
        )
    return lines


def _bars(slices: list[Json]) -> list["RenderableType"]:
    """A bar for each slice that is on its way."""
    from rich.columns import Columns
    from rich.progress_bar import ProgressBar

    from intelnav.cli.terminal import plain

    return [
        Columns(
            [
                plain(f"{held['model']} {held['layers']}"),
                ProgressBar(total=progress["total_bytes"], completed=progress["done_bytes"], width=40),
            ]
        )
        for held in slices
        if (progress := held.get("progress")) and progress.get("total_bytes")
    ]
