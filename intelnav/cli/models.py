"""`intelnav models`: what is on the node's disk, what can be had, how it gets there, and what the swarm serves."""

import json
import os
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intelnav.cli.ask import NodeOption
from intelnav.domain.errors import ConfigError
from intelnav.domain.model_ref import looks_like_a_path
from intelnav.domain.slice import LayerRange

if TYPE_CHECKING:
    from intelnav.cli.client import NodeClient

Json = dict[str, Any]

models = typer.Typer(
    help="The models on the node's disk, those that can be had, and what the swarm serves.",
    invoke_without_command=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print what the node says as JSON.")]
AsLines = Annotated[bool, typer.Option("--json", help="Print how it goes on as JSON, one object a line.")]
Which = Annotated[str, typer.Argument(metavar="NAME|CID", help="A model that `intelnav models` lists.")]


@models.callback()
def listing(context: typer.Context, as_json: AsJson = False, node: NodeOption = None) -> None:
    """List the models on the node's disk, those that can be had, and what the swarm serves."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console

    from intelnav.cli.client import NodeClient
    from intelnav.cli.network import swarm_parts
    from intelnav.cli.terminal import size_text

    with NodeClient(node) as asked:
        report = asked.library() | _served(asked)
    if as_json:
        print(json.dumps(report))
        return
    out = Console(highlight=False)
    out.print(_table(report))
    limit = f" of {size_text(report['max_bytes'])}" if report["max_bytes"] is not None else ""
    print(f"\nThe store takes {size_text(report['used_bytes'])}{limit}.\n")
    out.print(*swarm_parts(report["swarm"], report["swarm_problem"]), sep="\n")


@models.command("import")
def import_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URL|NAME", help="A GGUF, its URL, hf://OWNER/REPO/FILE, or a listed name."
        ),
    ],
    as_json: AsLines = False,
    node: NodeOption = None,
) -> None:
    """Make a model known to the node, from a file or over the network. Ctrl-C ends it; what has come is kept."""
    from intelnav.cli.client import NodeClient
    from intelnav.cli.terminal import size_text

    with NodeClient(node) as asked, asked.job("/models/import", {"what": absolute(what)}) as events:
        model = follow(events, as_json)
    if not as_json:
        print(
            f"{model['name']} is here: {model['blocks']} layers, {size_text(model['size_bytes'])}, {model['cid']}"
        )


@models.command()
def rm(
    which: Which,
    layers: Annotated[
        str | None, typer.Argument(metavar="START..END", help="Only this slice of it; all if left out.")
    ] = None,
    node: NodeOption = None,
) -> None:
    """Remove a model, or a slice of it, from the store. A file of your own stays where it is."""
    from intelnav.cli.client import NodeClient
    from intelnav.cli.terminal import size_text

    if layers is not None:
        try:
            LayerRange.parse(layers)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    with NodeClient(node) as asked:
        freed = asked.remove(_local(asked, which), layers)
    print(f"{size_text(freed)} are free again.")


@models.command()
def verify(
    which: Annotated[
        str | None, typer.Argument(metavar="NAME|CID", help="One model; all if left out.")
    ] = None,
    as_json: AsLines = False,
    node: NodeOption = None,
) -> None:
    """Hash again what is on the disk. Exit code 1 if anything is damaged."""
    from intelnav.cli.client import NodeClient
    from intelnav.cli.terminal import printable

    with NodeClient(node) as asked:
        path = f"/models/{_local(asked, which)}/verify" if which is not None else "/models/verify"
        with asked.job(path) as events:
            damaged = follow(events, as_json)["damaged"]
    if not as_json:
        for damage in damaged:
            print(printable(f"{damage['part']} of {damage['cid']}: {damage['reason']}", sys.stdout))
        if not damaged:
            print("All is as it must be.")
    if damaged:
        raise typer.Exit(1)


def _served(node: "NodeClient") -> Json:
    """What the swarm serves: `swarm`, or None and the `swarm_problem`. The list of what is here needs no swarm."""
    from intelnav.cli.client import NodeError

    try:
        return {"swarm": node.swarm_models(), "swarm_problem": ""}
    except NodeError as error:
        return {"swarm": None, "swarm_problem": str(error)}


def absolute(what: str) -> str:
    """`what`, as the node is told: it does not know the folder that a path starts at."""
    if "://" not in what and (looks_like_a_path(what) or Path(what).is_file()):
        return os.path.abspath(Path(what).expanduser())
    return what


def follow(events: Iterator[Json], as_json: bool) -> Json:
    """Show the events of a job as they come, and return its result."""
    from intelnav.cli.client import NodeError

    shown = _printed(events) if as_json else _drawn(events)
    for event in shown:
        if "result" in event:
            return dict(event["result"])
    raise NodeError("the node ended the work without a result")


def _printed(events: Iterator[Json]) -> Iterator[Json]:
    for event in events:
        print(json.dumps(event), flush=True)
        yield event


def _drawn(events: Iterator[Json]) -> Iterator[Json]:
    """A bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        stage, task = "", None
        for event in events:
            if "stage" in event:
                if task is None or event["stage"] != stage:
                    if task is not None:
                        bar.remove_task(task)
                    stage = event["stage"]
                    task = bar.add_task(stage, total=None, completed=event["done"])
                bar.update(task, completed=event["done"], total=event["total"] or None)
            yield event


def _local(node: "NodeClient", which: str) -> str:
    """The CID of the model here that is meant; ConfigError with what there is, if it is none or several."""
    here = [model for model in node.library()["models"] if model["where"] == "local"]
    found = [model["cid"] for model in here if which in (model["cid"], model["name"])]
    if len(found) == 1:
        return str(found[0])
    if found:
        raise ConfigError(
            f"{which!r} is the name of several models; write one of the CIDs {', '.join(found)}"
        )
    names = [str(model["name"]) for model in here]
    close = get_close_matches(which, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names) or 'none'}"
    raise ConfigError(f"no model {which!r} is here; {hint}")


def _table(report: Json) -> Any:
    from rich.markup import escape

    from intelnav.cli.terminal import size_text, table

    grid = table("Models", "name", "size", "layers", "here", "fits here", "cid or origin")
    for model in report["models"]:
        here = [*(["the file"] if model["file"] else []), *model["held"]]
        fits = model["hostable_layers"]
        row = (
            model["name"],
            size_text(model["size_bytes"]),
            str(model["blocks"]),
            ", ".join(here) or "-",
            "?" if fits is None else "all" if fits >= model["blocks"] else f"{fits} layers",
            model["cid"] or model["origin"] or "",
        )
        grid.add_row(*map(escape, row))
    return grid
