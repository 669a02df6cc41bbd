"""The config file that `intelnav init` writes: short, with comments, and accepted by the node."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from intelnav.cli.suggestion import Choice, Machine
from intelnav.config import load
from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Decision:
    """What the config is to say; a `choice` of None is the relay role."""

    machine: Machine
    choice: Choice | None
    listen: Address
    bootstrap: tuple[Address, ...]


def check_target(path: Path, force: bool) -> None:
    """Raise ConfigError if there is a file already that is not to be overwritten, or if it is not named as YAML is."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--config {path}: what is written is YAML; name it .yaml")
    if os.path.lexists(path) and not force:
        raise ConfigError(
            f"{path} is there already: add --force to overwrite it, or name another with --config"
        )


def write(path: Path, decision: Decision, environ: Mapping[str, str], force: bool) -> None:
    """Write the config, once the node's own reading of it, with the variables in `environ`, found nothing wrong.

    Raises ConfigError; then there is no new file, and an old one is as it was.
    """
    draft = path.with_name(f".intelnav-init.{os.getpid()}.yaml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_text(config_text(decision, path), encoding="utf-8")
            load(draft, environ)
            check_target(path, force)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(draft), str(path))) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name another file with --config") from error


def config_text(decision: Decision, path: Path) -> str:
    """The file's text, for the place where it will lie."""
    machine, choice = decision.machine, decision.choice
    lines = [
        f"# Written by `intelnav init` for {machine.cores} cores and {machine.memory / 1e9:.1f} GB of memory.",
        f"# Run it with: intelnav-node --config {_comment(path.name)}",
        "# Every key that could stand here: config/node.yaml in IntelNav's sources.",
        "",
        "# host: lends its hardware to the slices below. relay: helps others to find and reach each other.",
        f"role: {'relay' if choice is None else 'host'}",
        "",
        *([] if choice is None else _slices(choice)),
        *_entry(choice),
        "network:",
        "  # Where peers reach this node. A router in between must pass on this port, TCP and UDP, and TCP to the next",
        "  # one, where peers fetch models.",
        f"  listen: {json.dumps(str(decision.listen))}",
        "  # Where to ask first who else is there. On the local network, nodes find each other without it.",
        "  bootstrap:",
        *[f"    - {json.dumps(str(address))}" for address in decision.bootstrap],
        *([] if decision.bootstrap else ["    # - 192.0.2.9:7717"]),
    ]
    return "\n".join(lines) + "\n"


def _slices(choice: Choice) -> list[str]:
    return [
        "# Layer ranges that others may use, START..END without END.",
        "slices:",
        f"  # {_comment(choice.offer.name)} has {len(choice.offer.hosts)} layers. These take about "
        f"{choice.need / 1e9:.1f} GB of memory.",
        f"  - model: {json.dumps(choice.offer.ref)}",
        f"    layers: {choice.layers}",
        "",
    ]


def _entry(choice: Choice | None) -> list[str]:
    """The model that this node answers for: switched on if that takes no memory beyond the slice."""
    mark, model, layers, name = "# ", "CID", "0..1", "NAME"
    hint = [
        "# `intelnav models` lists what the swarm serves; to ask one of them, put in its CID and take off the #."
    ]
    if choice is not None:
        model, start = choice.offer.ref, choice.layers.start
        name = choice.offer.name if choice.offer.name != model else ""
        layers = f"0..{start}"
        hint = ["# To ask this one as well, which takes more memory, take off the #."]
        if start == 0:
            mark, layers, hint = "", str(choice.layers), []
    return [
        "# Models that can be asked here. Their first layers run here, so that no peer sees the prompt as text.",
        *hint,
        "entry:",
        f"  {mark}- model: {json.dumps(model)}",
        f"  {mark}  layers: {layers}",
        *([f"  {mark}  name: {json.dumps(name)}"] if name else []),
        "",
    ]


def _comment(text: str) -> str:
    """Text that stays within its line."""
    return "".join(char if char.isprintable() else "?" for char in text)
