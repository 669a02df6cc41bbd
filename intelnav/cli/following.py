"""Waiting for what a node has begun with a slice, with a line or a bar on a terminal meanwhile."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from intelnav.cli.client import NodeClient, NodeError
from intelnav.cli.status import state_text
from intelnav.cli.terminal import printable, running

Json = dict[str, Any]

POLL_SECONDS = 0.25

Show = Callable[[str, Json], None]


def until_gone(node: NodeClient, begun: Json) -> Json:
    """Return what became of a slice that is left; NodeError if it is hosted again before it is gone."""
    ending = False
    with _bar() as show:
        while (held := _found(node.hosting(), begun)) is not None and held["state"] != "stopped":
            if ending and held["state"] != "draining":
                raise NodeError(f"{_name(begun)} is hosted again: {held['state']}")
            ending = held["state"] == "draining"
            show(f"{held['state']}, {running(held['in_use'])}", {})
            time.sleep(POLL_SECONDS)
    return begun | {"state": "stopped", "in_use": 0}


def until_ready(node: NodeClient, begun: Json) -> Json:
    """Return once a slice that was joined is ready; NodeError if it fails, or is given up."""
    with _bar() as show:
        while (held := _found(node.status()["slices"], begun)) is not None and held["state"] != "ready":
            if held["state"] == "failed":
                raise NodeError(f"{_name(begun)} {state_text(held)}; the node goes on trying")
            show(state_text(held), held.get("progress") or {})
            time.sleep(POLL_SECONDS)
    if held is None:
        raise NodeError(f"{_name(begun)} is not hosted any more")
    return begun | {"state": "ready"}


def _found(slices: list[Json], begun: Json) -> Json | None:
    """The slice as the node shows it, if it does."""
    key = begun["model"], begun["layers"]
    return next((held for held in slices if (held["model"], held["layers"]) == key), None)


def _name(begun: Json) -> str:
    return f"{begun['model']} {begun['layers']}"


@contextmanager
def _bar() -> Iterator[Show]:
    """What shows a text, and the progress of a fetch if there is one; on a terminal only."""
    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(text: str, progress: Json) -> None:
            total = progress.get("total_bytes") or None
            bar.update(
                task,
                description=printable(text, sys.stderr),
                total=total,
                completed=progress.get("done_bytes", 0),
            )

        yield show
