"""Where figures go: tables on the terminal, and `build/bench.json`, to which every benchmark adds its own part."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FILE = Path("build/bench.json")


def merge(name: str, figures: dict[str, Any], file: Path = FILE) -> None:
    """Write `figures` as the part `name`, and leave the other parts as they are."""
    parts = json.loads(file.read_text()) if file.exists() else {}
    file.parent.mkdir(exist_ok=True)
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(parts | {name: figures}, indent=2) + "\n")
    draft.replace(file)


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table: the first column is text, the others are figures."""
    table = Table(*head)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            *(f"{cell:.3g}" if isinstance(cell, float) and cell < 100 else _text(cell) for cell in row)
        )
    # A title of the table itself would be wrapped to its width.
    Console().print(f"\n{title}", table, sep="\n", highlight=False)


def _text(cell: Any) -> str:
    return f"{cell:,.0f}" if isinstance(cell, int | float) else str(cell)
