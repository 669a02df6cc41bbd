"""The file of a slice on this disk: what it holds, and whether it is still what it was."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from intelnav.controller.shelf import Model
from intelnav.controller.state import Room
from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import footprint
from intelnav.engine.interface import SliceSpec
from intelnav.store.blobs import Store
from intelnav.store.faults import fault_in_file
from intelnav.store.model_file import ModelFile, describe

Mark = tuple[int, int, int, int]
"""What of a file's status changes with its content. It may change without: then the file is hashed for nothing."""


@dataclass(frozen=True, slots=True)
class SliceFile:
    """A file that can be loaded as it is, and how it looked when its bytes were last known to be sound."""

    path: Path
    file: ModelFile
    mark: Mark

    @classmethod
    def at(cls, path: Path, mark: Mark | None = None) -> Self:
        """The slice at `path`, with what was its mark before anything of it was read.

        Raises ConfigError or ContentError for what cannot be loaded, OSError if it is gone.
        """
        mark = mark or mark_of(path)
        found = cls(path, describe(path), mark)
        # What it would take can only be told of a sound header.
        found.need(Room())
        return found

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.mark[2]

    def spec(self, room: Room) -> SliceSpec:
        """How to load it: as `room` says, with no more context than the model was trained for."""
        return SliceSpec(
            self.path,
            sessions=room.sessions,
            context=min(room.context, self.file.context),
            max_rows=room.max_rows,
            device=room.device,
            gpu_layers=room.gpu_layers,
            threads=room.threads,
        )

    def need(self, room: Room) -> int:
        """Bytes of memory that loading it so will take."""
        return footprint(self.file, self.spec(room)).total


def mark_of(path: Path) -> Mark:
    """How a file looks now; OSError if it is gone."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def sound(store: Store, model: Model, layers: LayerRange, path: Path) -> SliceFile:
    """The slice at `path`, once it was hashed, if it is one of the store's: the disk may have changed it since.

    Raises ContentError if it is not what it should be. It is set aside then, so that the next one is put together from
    what is sound in it.
    """
    mark = mark_of(path)
    in_store = path.is_relative_to(store.root)
    # Before anything is read out of it: what cannot even be read must be set aside as well.
    if in_store and (fault := store.verify_slice(model.cid, layers)) is not None:
        raise ContentError(f"{path} was damaged, and is put together again: {fault.reason}")
    return SliceFile.at(path, mark)


def still_sound(store: Store, model: Model, layers: LayerRange, file: SliceFile) -> SliceFile:
    """A file that somebody touched, if its bytes are what they were; ContentError if not, OSError if it is gone."""
    path = file.path
    if path.is_relative_to(store.root):
        return sound(store, model, layers, path)
    found = SliceFile.at(path)
    if model.manifest is None or (reason := fault_in_file(model.manifest, path)) is not None:
        raise ContentError(
            f"{path} was changed" if model.manifest is None else f"{path} was changed: {reason}"
        )
    store.add_file(model.manifest, path, None)
    return found
