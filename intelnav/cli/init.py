"""`intelnav init`: the first config of a machine, made from what it has and what the swarm lacks."""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intelnav.cli.ask import NodeOption

if TYPE_CHECKING:
    from intelnav.cli.init_file import Decision
    from intelnav.cli.suggestion import Choice, Machine
    from intelnav.domain.advert import Address

LISTEN = "0.0.0.0:7717"


class Role(StrEnum):
    """What a node can be told to do for others."""

    HOST = "host"
    RELAY = "relay"


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Write what is suggested without a question.")]
File = Annotated[Path, typer.Option("--config", metavar="FILE", help="The YAML file to write.")]
Bootstrap = Annotated[
    list[str] | None,
    typer.Option(
        "--bootstrap", metavar="HOST:PORT", help="A node to start from; can be given several times."
    ),
]
Listen = Annotated[
    str, typer.Option("--listen", metavar="HOST:PORT", help="Where peers are to reach this node.")
]
RoleOption = Annotated[
    Role | None, typer.Option("--role", help="Host a slice or relay; what the machine can do if left out.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was decided as one JSON object.")]


def init(
    yes: Yes = False,
    config: File = Path("node.yaml"),
    bootstrap: Bootstrap = None,
    listen: Listen = LISTEN,
    role: RoleOption = None,
    force: Force = False,
    as_json: AsJson = False,
    node: NodeOption = None,
) -> None:
    """Write a config for this machine: a slice to host that fits it and that the swarm lacks, or the relay role.

    A node that runs already, here or where --node says, is asked what the swarm lacks.
    """
    from intelnav.cli.init_file import Decision, check_target, write
    from intelnav.cli.suggestion import this_machine
    from intelnav.domain.errors import ConfigError

    known = [_address("--bootstrap", text, dialled=True) for text in bootstrap or []]
    own = _address("--listen", listen, dialled=False)
    check_target(config, force)
    machine = this_machine()
    choice, asked = (None, False) if role is Role.RELAY else _suggested(machine, node)
    if choice is None and role is Role.HOST:
        raise ConfigError(
            f"--role host: no slice of a known model fits in {_gb(machine.room)} GB, half of what is free; "
            "free some memory, or write --role relay"
        )
    decision = Decision(machine, choice, own, tuple(dict.fromkeys(known)))
    if not (as_json and yes):
        print(*_explained(decision, asked, role), sep="\n", file=sys.stderr if as_json else None, flush=True)
    if not yes:
        _ask(config)
    write(config, decision, os.environ, force)
    command = f"intelnav-node --config {quote(str(config))}"
    if as_json:
        print(json.dumps({"file": str(config.absolute()), "command": command, **_report(decision)}))
        return
    print(f"{config} is written.\nNext: {command}")


def _suggested(machine: "Machine", node: str | None) -> "tuple[Choice | None, bool]":
    """The slice to host, and whether a node told what the swarm serves. One that was named must do so."""
    from intelnav.cli.client import NodeClient, NodeError
    from intelnav.cli.suggestion import catalog_offers, choose, served_offers
    from intelnav.store.catalog import shipped_catalog

    catalog = shipped_catalog()
    models: list[dict[str, Any]] | None = None
    try:
        with NodeClient(node) as asked:
            models = asked.swarm_models()
    except NodeError:
        if node is not None:
            raise
    return choose(
        served_offers(models or [], catalog), catalog_offers(catalog), machine.room
    ), models is not None


def _explained(decision: "Decision", asked: bool, role: Role | None) -> list[str]:
    machine, choice = decision.machine, decision.choice
    lines = [
        f"This machine has {machine.cores} cores and {_gb(machine.memory)} GB of memory, "
        f"of which {_gb(machine.free)} GB are free; a slice may take half of that."
    ]
    if choice is not None:
        whole = ", which are all," if choice.is_whole else ""
        lines.append(
            f"It can host layers {choice.layers}{whole} of {choice.offer.name}: about {_gb(choice.need)} GB. "
            f"{_why(choice, asked)}"
        )
    elif role is Role.RELAY:
        lines.append("It will relay: help others to find and reach each other, without a slice.")
    else:
        lines.append("No slice fits, so it can relay: help others to find and reach each other.")
    lines.append(f"It will listen on {decision.listen}.")
    if decision.bootstrap:
        lines.append(f"It will start from {', '.join(map(str, decision.bootstrap))}.")
    else:
        lines.append("Without --bootstrap HOST:PORT it finds others on the local network only.")
    return lines


def _why(choice: "Choice", asked: bool) -> str:
    """What speaks for this slice."""
    held = choice.offer.hosts[choice.layers.start : choice.layers.end]
    if choice.missing:
        return f"{choice.missing} of these layers have no host."
    if any(choice.offer.hosts):
        return f"Each of these layers has {min(held)} hosts or more; no other slice that fits is needed more."
    if asked:
        return "The swarm serves nothing that fits here."
    return "No node was there to ask what the swarm lacks."


def _ask(config: Path) -> None:
    """Return if the user agrees; ConfigError if not, or if there is nobody to ask."""
    from intelnav.domain.errors import ConfigError

    print(f"Write {config}? [Y/n] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.buffer.readline()
    if not answer:
        print(file=sys.stderr)
        raise ConfigError("nothing is written: the question was not answered; --yes asks none")
    if answer.strip().lower() not in (b"", b"y", b"yes"):
        raise ConfigError("nothing is written; --role and --config choose otherwise")


def _report(decision: "Decision") -> dict[str, Any]:
    machine, choice = decision.machine, decision.choice
    return {
        "role": "relay" if choice is None else "host",
        "slice": None
        if choice is None
        else {
            "model": choice.offer.ref,
            "name": choice.offer.name,
            "layers": str(choice.layers),
            "memory_bytes": choice.need,
            "without_host": choice.missing,
        },
        "listen": str(decision.listen),
        "bootstrap": [str(address) for address in decision.bootstrap],
        "machine": {
            "cores": machine.cores,
            "memory_bytes": machine.memory,
            "free_bytes": machine.free,
            "room_bytes": machine.room,
        },
    }


def _address(option: str, text: str, *, dialled: bool) -> "Address":
    """What an option names; a usage error if that is no address."""
    from intelnav.domain.advert import Address

    try:
        address = Address.parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {error}") from None
    if dialled and address.port == 0:
        raise typer.BadParameter(
            f"{option} {text}: port 0 cannot be dialled; write the port that the node listens on"
        )
    return address


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"
