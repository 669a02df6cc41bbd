"""What the commands show on a terminal."""

import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from intelnav.cli.client import Reply


def printable(text: str, out: TextIO) -> str:
    """The text, on a terminal without control characters: peers have a say in what it is."""
    if not out.isatty():
        return text
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def show(reply: Reply, out: TextIO = sys.stdout) -> None:
    """Print the answer as it arrives."""
    for text in reply:
        out.write(printable(text, out))
        out.flush()
    out.write("\n")


def complain(error: Exception) -> None:
    """Print an error; some of its words may come from a peer."""
    print(f"intelnav: {printable(str(error), sys.stderr)}", file=sys.stderr)


def summary(reply: Reply) -> str:
    """One line about a whole answer."""
    speed = reply.timing.get("tokens_per_second", 0.0)
    end = ", cut off at the limit" if reply.finish_reason == "length" else ""
    return f"{len(reply.tokens)} tokens, {speed:.1f} a second, {len(reply.chain)} nodes{end}"


def note(text: str) -> None:
    """A dim remark beside the answer, for people only."""
    if sys.stderr.isatty():
        Console(stderr=True).print(text, style="dim", markup=False, highlight=False)


def table(title: str, *columns: str) -> Table:
    """An empty table."""
    grid = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for column in columns:
        grid.add_column(column)
    return grid


def chain_table(chain: list[dict[str, Any]]) -> Table:
    """Which peer computed which layers, and how long it kept a token."""
    grid = table("Chain", "peer", "layers", "ms per token")
    for hop in chain:
        grid.add_row(str(hop["peer"])[:8], str(hop["layers"]), f"{hop['milliseconds']:.2f}")
    return grid


def size_text(size: int | None) -> str:
    """Bytes in the unit that fits."""
    if size is None:
        return "?"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def add_row(grid: Table, *cells: str) -> None:
    """Add a row of plain text: no markup, and on a terminal no control characters, since peers have a say in it."""
    grid.add_row(*(escape(printable(cell, sys.stdout)) for cell in cells))


def plain(text: str, style: str = "") -> Text:
    """A line without markup, and on a terminal without control characters, since peers have a say in it."""
    return Text(printable(text, sys.stdout), style)


def say(parts: Sequence[RenderableType]) -> None:
    """Print lines, which are not broken, and tables."""
    out = Console(highlight=False)
    for part in parts:
        out.print(part, soft_wrap=isinstance(part, Text))


def running(answers: int) -> str:
    """How many answers still run."""
    return f"{answers} answer still runs" if answers == 1 else f"{answers} answers still run"
