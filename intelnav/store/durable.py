"""Files that are either there whole, also after a crash, or not at all."""

import os
from contextlib import suppress
from pathlib import Path

# What stands between a temporary file's name and its end; a crash may leave one.
TEMPORARY = ".tmp"


def write_file(path: Path, data: bytes) -> None:
    """Make `data` the content of `path` in one step; OSError leaves what was there. One writer at a time."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a crash of the machine."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
