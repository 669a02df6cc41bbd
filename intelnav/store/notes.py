"""What is known of a model beside its content: the user's own file of it, and the URLs it can be had from."""

import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from intelnav.domain.errors import ContentError
from intelnav.store.cid import is_cid
from intelnav.store.durable import write_file
from intelnav.store.folder import Folder

log = logging.getLogger(__name__)

MAX_ORIGINS = 16


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A whole GGUF of the user that was hashed once, as it was then: `size` in bytes, `mtime_ns` since the epoch."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def at(cls, path: Path) -> Self:
        """The file as it is now; OSError if it is not there."""
        found = path.stat()
        return cls(path.absolute(), found.st_size, found.st_mtime_ns)

    def unchanged(self) -> bool:
        """Whether the file is still there as it was when it was hashed."""
        try:
            return OwnFile.at(self.path) == self
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Note:
    """What is noted about one model; `origins` are the newest last."""

    file: OwnFile | None = None
    origins: tuple[str, ...] = ()

    def with_origin(self, url: str) -> "Note":
        """The same with one more origin; the oldest give way. ContentError if `url` is none of http or https."""
        if not url.startswith(("http://", "https://")):
            raise ContentError(f"{url[:80]!r} is no http or https URL")
        others = tuple(origin for origin in self.origins if origin != url)
        return replace(self, origins=(*others, url)[-MAX_ORIGINS:])

    def to_bytes(self) -> bytes:
        """As JSON."""
        file = self.file and {
            "path": os.fspath(self.file.path),
            "size": self.file.size,
            "mtime_ns": self.file.mtime_ns,
        }
        return json.dumps({"file": file, "origins": self.origins}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; ValueError for anything else."""
        try:
            document = json.loads(data)
            file = document["file"]
            own = None
            if file is not None:
                own = OwnFile(Path(file["path"]), int(file["size"]), int(file["mtime_ns"]))
            return cls(own, tuple(str(url) for url in document["origins"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"this is no note about a model: {error}") from None


class Notes:
    """The notes of a store, one small file for each model."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def of(self, cid: str) -> Note:
        """What is noted about a model; an empty note if there is nothing."""
        if not is_cid(cid):
            return Note()
        try:
            return Note.from_bytes(self._folder.file(cid).read_bytes())
        except FileNotFoundError:
            return Note()
        except ValueError as error:
            log.warning("%s is damaged: %s", self._folder.file(cid), error)
            return Note()

    def write(self, cid: str, note: Note) -> None:
        """Note something else about a model."""
        write_file(self._folder.file(cid), note.to_bytes())

    def with_file(self, file: OwnFile) -> list[str]:
        """The CIDs of the models that a file was noted for, as it is now."""
        return [cid for cid in self._folder.files() if self.of(cid).file == file]
