"""What is known of a model beside its content: the user's own file of it, and the URLs it can be had from."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

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
        """The same with one more origin; the oldest give way."""
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
            own = file and OwnFile(Path(file["path"]), int(file["size"]), int(file["mtime_ns"]))
            return cls(own or None, tuple(str(url) for url in document["origins"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"this is no note about a model: {error}") from None
