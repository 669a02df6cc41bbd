"""The store's folder on disk: what lies where, and how much of the disk it takes."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.cid import is_cid
from intelnav.store.durable import TEMPORARY

_SLICE = re.compile(r"(\d{1,6})-(\d{1,6})\.gguf")
_PART = re.compile(r"\.(\d{1,6})-(\d{1,6})\.part")


class Folder:
    """Paths below `root`. A CID is checked before it becomes part of one: ContentError if it is none."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self._manifests, self._blobs = root / "manifests", root / "blobs"
        self._slices, self._files = root / "slices", root / "files"

    def prepare(self) -> None:
        """Make the folders, and remove what a crash left of files that are written in one step."""
        for folder in (self._manifests, self._blobs, self._slices, self._files):
            folder.mkdir(parents=True, exist_ok=True)
            for stale in folder.glob(f".*{TEMPORARY}"):
                stale.unlink()

    def manifest(self, model: str) -> Path:
        """Where a model's manifest lies."""
        return self._manifests / f"{_checked(model)}.json"

    def blob(self, cid: str) -> Path:
        """Where a blob lies that is a file of its own."""
        return self._blobs / _checked(cid)

    def file(self, model: str) -> Path:
        """Where it is noted which whole GGUF of the user holds a model, and where it came from."""
        return self._files / f"{_checked(model)}.json"

    def slice(self, model: str, layers: LayerRange) -> Path:
        """Where a whole slice lies."""
        return self._slices / _checked(model) / f"{layers.start}-{layers.end}.gguf"

    def part(self, model: str, layers: LayerRange) -> Path:
        """Where a slice lies while it is put together."""
        return self._slices / _checked(model) / f".{layers.start}-{layers.end}.part"

    def models(self) -> list[str]:
        """The CIDs of all manifests."""
        return [cid for cid in _stems(self._manifests, ".json") if is_cid(cid)]

    def files(self) -> list[str]:
        """The CIDs of all models with a note about a file or an origin."""
        return [cid for cid in _stems(self._files, ".json") if is_cid(cid)]

    def blobs(self) -> list[str]:
        """The CIDs of all blobs that are files of their own."""
        return [cid for cid in _stems(self._blobs, "") if is_cid(cid)]

    def slices(self) -> Iterator[tuple[str, LayerRange, Path]]:
        """All whole slices."""
        return self._ranges(_SLICE)

    def parts(self) -> Iterator[tuple[str, LayerRange, Path]]:
        """All slices that are not whole yet."""
        return self._ranges(_PART)

    def tidy(self, model: str) -> None:
        """Remove a model's folder if there is nothing in it."""
        with suppress(OSError):
            (self._slices / _checked(model)).rmdir()

    def used(self) -> int:
        """Bytes of disk that everything here takes; holes take none."""
        return sum(on_disk(path) for path in self.root.rglob("*"))

    def _ranges(self, pattern: re.Pattern[str]) -> Iterator[tuple[str, LayerRange, Path]]:
        for folder in sorted(self._slices.iterdir()):
            for path in sorted(folder.iterdir()) if is_cid(folder.name) else ():
                match = pattern.fullmatch(path.name)
                if match and int(match[1]) < int(match[2]):
                    yield folder.name, LayerRange(int(match[1]), int(match[2])), path


def on_disk(path: Path) -> int:
    """Bytes of disk that a file takes; 0 for a folder and for what is not there any more."""
    try:
        return path.lstat().st_blocks * 512 if path.is_file() else 0
    except FileNotFoundError:
        return 0


def _stems(folder: Path, suffix: str) -> list[str]:
    return sorted(path.name.removesuffix(suffix) for path in folder.iterdir() if path.name.endswith(suffix))


def _checked(cid: str) -> str:
    if not is_cid(cid):
        raise ContentError(f"{cid[:80]!r} is no content id")
    return cid
