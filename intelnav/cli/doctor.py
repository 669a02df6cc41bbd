"""`intelnav doctor`: what keeps a node on this machine from doing what its config says, and how to mend it."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intelnav.cli.ask import NodeOption

if TYPE_CHECKING:
    from intelnav.cli.finding import Finding
    from intelnav.config import NodeConfig

Json = dict[str, Any]

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="What the node runs with; asked of a running node if left out."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


def doctor(config: Config = None, as_json: AsJson = False, node: NodeOption = None) -> None:
    """Check what a node needs, whether one runs or not, and say how to mend what is wrong.

    Exit code 1 if a check fails.
    """
    findings = []
    for finding in _findings(config, node):
        findings.append(finding)
        if not as_json:
            _show(finding)
    failed = sum(finding.verdict == "fail" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in findings]}))
    else:
        warned = sum(finding.verdict == "warn" for finding in findings)
        print(f"\n{len(findings)} checks: {failed} failed, {warned} with a warning.")
    if failed:
        raise typer.Exit(1)


def _findings(file: Path | None, where: str | None) -> Iterator["Finding"]:
    """Every check, one after the other; some take seconds."""
    from intelnav.cli import doctor_files as files
    from intelnav.cli import doctor_machine as machine
    from intelnav.cli import doctor_node as running
    from intelnav.cli.finding import Finding
    from intelnav.config import load
    from intelnav.domain.errors import ConfigError

    yield machine.python()
    status = None if where is None and file is not None else running.status_of(where)
    file = file or running.config_file(status)
    settings: NodeConfig | None = None
    try:
        settings = load(file, os.environ)
        yield Finding("config", "ok", f"{file} is valid" if file is not None else "no file: the defaults")
    except ConfigError as error:
        fix = (
            f"mend it; `intelnav config check {file}` checks it"
            if file
            else "mend the INTELNAV_... variables"
        )
        yield Finding("config", "fail", str(error), fix)
    yield machine.engine(settings.backend.device if settings is not None else "auto")
    if settings is None:
        yield Finding(
            "everything else", "warn", "not checked: it depends on the config", "mend the config first"
        )
        return
    if status is None:
        status = running.status_of(where or str(settings.control_socket))
    yield running.node(settings, status)
    yield files.data_dir(settings.data_dir)
    yield files.key(settings.data_dir / "peer.key")
    yield from machine.ports(settings, running.pid_of(settings.control_socket) if status else None)
    yield files.disk(settings)
    yield files.store(settings.data_dir / "store")
    yield machine.memory(settings, status)
    yield machine.clock(settings)
    yield machine.systemd()
    yield from running.network(settings, status, where)


def _show(finding: "Finding") -> None:
    from rich.console import Console
    from rich.text import Text

    from intelnav.cli.terminal import printable

    mark, colour = _MARKS[finding.verdict]
    out = Console(highlight=False, soft_wrap=True)
    found = printable(finding.found, sys.stdout).replace("\n", "\n     ")
    out.print(Text.assemble((mark, colour), f" {finding.check}: {found}"))
    if finding.fix:
        out.print(Text(f"     fix: {printable(finding.fix, sys.stdout)}"))
