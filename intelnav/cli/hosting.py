"""`intelnav hosting`, `leave` and `join`: what a node hosts, and what it shall give up or take on for now."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intelnav.cli.ask import NodeOption
from intelnav.cli.models import absolute
from intelnav.domain.slice import LayerRange

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from intelnav.cli.client import NodeClient

Json = dict[str, Any]

AsJson = Annotated[bool, typer.Option("--json", help="Print what the node says as JSON.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A name, a CID, or what the config could say.")]


def _range(text: str) -> str:
    try:
        return str(LayerRange.parse(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Layers = Annotated[
    str, typer.Argument(metavar="START..END", parser=_range, help="The slice, for instance 8..15.")
]


def hosting(as_json: AsJson = False, node: NodeOption = None) -> None:
    """Show what a node hosts, and the chains that run through it."""
    from intelnav.cli.client import NodeClient
    from intelnav.cli.terminal import say

    with NodeClient(node) as asked:
        held = asked.hosting()
    if as_json:
        print(json.dumps({"hosting": held}))
    else:
        say(tables(held))


def leave(
    model: Model,
    layers: Layers,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when it is gone; running answers finish first.")
    ] = False,
    as_json: AsJson = False,
    node: NodeOption = None,
) -> None:
    """Have a node give up a slice until its config is next loaded."""
    from intelnav.cli.client import NodeClient
    from intelnav.cli.following import until_gone
    from intelnav.cli.terminal import say

    with NodeClient(node) as asked:
        begun = asked.leave(absolute(model), layers)
        if not as_json:
            say(left(asked, begun))
        if wait:
            begun = until_gone(asked, begun)
            if not as_json:
                print("It is gone.")
    if as_json:
        print(json.dumps(begun))


def join(
    model: Model,
    layers: Layers,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is ready, or has failed.")] = False,
    as_json: AsJson = False,
    node: NodeOption = None,
) -> None:
    """Have a node host a slice until its config is next loaded."""
    from intelnav.cli.client import NodeClient
    from intelnav.cli.following import until_ready
    from intelnav.cli.terminal import say

    with NodeClient(node) as asked:
        begun = asked.join(absolute(model), layers)
        if not as_json:
            say(joined(asked, begun, absolute(model)))
        if wait:
            begun = until_ready(asked, begun)
            if not as_json:
                print("It is ready.")
    if as_json:
        print(json.dumps(begun))


def tables(held: list[Json]) -> list["RenderableType"]:
    """The hosted slices for people, and what runs through them."""
    from intelnav.cli.terminal import add_row, plain, table

    if not held:
        return [plain("This node hosts nothing.")]
    grid = table("Hosts", "model", "layers", "state", "in use", "cid")
    for each in held:
        use = f"{each['in_use']} of {each['sessions']}"
        add_row(grid, each["model"], each["layers"], each["state"], use, each["cid"] or "?")
    chains = table("Chains that run", "model", "layers", "session", "asked by", "from", "to", "s", "tokens")
    for each in held:
        for chain in each["chains"]:
            peers = [str(chain[key] or "-")[:8] for key in ("entry", "prev", "next")]
            end = (f"{chain['seconds']:.0f}", str(chain["tokens"]))
            add_row(chains, each["model"], each["layers"], chain["session"], *peers, *end)
    return [grid, plain(""), chains] if chains.row_count else [grid]


def left(node: "NodeClient", begun: Json) -> "list[Text]":
    """What `leave` has begun, how long that lasts, and what would make it last."""
    from intelnav.cli.terminal import running

    rest = f", {running(begun['in_use'])}" if begun["in_use"] else ""
    return _told(node, begun, f"{_state(begun)}{rest}.", "take out of", begun["model"])


def joined(node: "NodeClient", begun: Json, wanted: str) -> "list[Text]":
    """What `join` has begun with the model that was `wanted`, how long that lasts, and what would make it last."""
    return _told(node, begun, f"{_state(begun)}.", "add to", wanted)


def _state(begun: Json) -> str:
    return f"{begun['model']} {begun['layers']}: {begun['state']}"


def _told(node: "NodeClient", begun: Json, first: str, edit: str, model: str) -> "list[Text]":
    from intelnav.cli.terminal import plain

    file = str((node.status().get("config") or {}).get("file") or "")
    where = file or "a config, and start the node with --config"
    return [
        plain(first),
        plain(f"This lasts until {begun['until']}. For good, {edit} {where}:"),
        *(plain(f"  {line}", "dim") for line in lines(model, begun["layers"], toml=file.endswith(".toml"))),
    ]


def lines(model: str, layers: str, *, toml: bool) -> list[str]:
    """How a config says that a slice is hosted."""
    if toml:
        # What JSON writes of printable text, TOML reads.
        return ["[[slices]]", f"model = {json.dumps(model, ensure_ascii=False)}", f'layers = "{layers}"']
    import yaml

    text: str = yaml.safe_dump(
        {"slices": [{"model": model, "layers": layers}]}, sort_keys=False, allow_unicode=True, width=5000
    )
    return text.splitlines()
