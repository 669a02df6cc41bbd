"""`intelnav reload` and `intelnav events`: the config is read again, and what happened on the node."""

import json
import sys
from typing import Annotated, Any

import typer

from intelnav.cli.ask import NodeOption

Json = dict[str, Any]

AsJson = Annotated[bool, typer.Option("--json", help="Print what the node says as JSON.")]
AsLines = Annotated[bool, typer.Option("--json", help="Print the events as JSON, one object a line.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens until the node stops.")]
After = Annotated[int, typer.Option(min=0, metavar="SEQ", help="Leave out the events up to this number.")]


def reload(as_json: AsJson = False, node: NodeOption = None) -> None:
    """Have a node load its config again, which also ends what `leave` and `join` did."""
    from intelnav.cli.client import NodeClient

    with NodeClient(node) as asked:
        loaded = asked.reload()
    if as_json:
        print(json.dumps(loaded))
    else:
        said = "something else than before" if loaded["changed"] else "the same as before"
        print(f"The config is loaded and says {said}; it is generation {loaded['generation']}.")


def events(
    follow: Follow = False, after: After = 0, as_json: AsLines = False, node: NodeOption = None
) -> None:
    """Show what happened on a node, as far as it remembers."""
    from intelnav.cli.client import NodeClient
    from intelnav.cli.terminal import printable

    with NodeClient(node) as asked, asked.events(after, follow=follow) as told:
        for event in told:
            text = json.dumps(event) if as_json else printable(line(event), sys.stdout)
            print(text, flush=True)


def line(event: Json) -> str:
    """An event for people: the time of the day here, which slice, and what became of it."""
    from datetime import datetime

    at = datetime.fromisoformat(event["time"]).astimezone()
    where = [str(event[key]) for key in ("model", "layers") if key in event]
    state = [f"[{event['state']}]"] if "state" in event else []
    return " ".join([f"{at:%Y-%m-%d %H:%M:%S}", *(where or [str(event["kind"])]), *state, event["message"]])
