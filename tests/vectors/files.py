"""Reads the vector files of this folder."""

import json
from pathlib import Path
from typing import Any


def read_vectors(name: str) -> Any:
    """The content of `NAME.json`."""
    return json.loads((Path(__file__).parent / f"{name}.json").read_text())
