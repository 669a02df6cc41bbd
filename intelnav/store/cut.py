"""Cutting a slice out of a whole model's file on this machine; `layout` says what the slice consists of."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.durable import sync_folder
from intelnav.store.layout import plan_slice
from intelnav.store.model_file import describe

CHUNK = 1024 * 1024


def cut(
    source: Path, layers: LayerRange, target: Path, model: str, between: Callable[[], None] = lambda: None
) -> None:
    """Write the slice of the whole model at `source` that holds `layers` to `target`, in one step.

    `model` is the CID that the slice is labelled with. `between` is called after each chunk, and may raise to give
    up. Raises ContentError if the model cannot be cut so, and OSError if `target` cannot be written. Whatever is
    raised, `target` is as it was.
    """
    whole = describe(source)
    try:
        plan = plan_slice(whole, layers, model)
    except ContentError as error:
        raise ContentError(f"{source}: {error}") from None
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with source.open("rb") as read, temporary.open("wb") as written:
            written.write(plan.header)
            for part in plan.parts:
                if part.source is not None:
                    written.seek(part.tensor.offset)
                    for chunk in _chunks(read.fileno(), part.source, part.tensor.size):
                        written.write(chunk)
                        between()
            # What is made up stays a hole in the file, and costs no disk.
            written.truncate(plan.size)
            written.flush()
            os.fsync(written.fileno())
        temporary.replace(target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    sync_folder(target.parent)


def _chunks(file: int, offset: int, size: int) -> Iterator[bytes]:
    end = offset + size
    while offset < end:
        chunk = os.pread(file, min(CHUNK, end - offset), offset)
        if not chunk:
            raise ContentError(f"the model's file became shorter while it was cut: byte {offset} is gone")
        yield chunk
        offset += len(chunk)
