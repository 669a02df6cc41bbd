"""Which blobs are on this machine: in slices, in files of the user, and as files of their own."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from intelnav.domain.errors import ConfigError, ContentError
from intelnav.store.cid import is_cid
from intelnav.store.extents import Extent, Located, in_file, in_slice
from intelnav.store.folder import Folder
from intelnav.store.gguf_reader import read_header
from intelnav.store.manifest import Manifest
from intelnav.store.notes import OwnFile

log = logging.getLogger(__name__)

Places = dict[str, Located]


class BlobIndex:
    """Finds blobs by CID; gathered anew at the first question after a change. Any thread may ask."""

    def __init__(
        self,
        folder: Folder,
        manifest: Callable[[str], Manifest | None],
        own_file: Callable[[str], OwnFile | None],
    ) -> None:
        """`manifest` and `own_file` give a model's manifest, and the user's file of it as it was verified."""
        self._folder = folder
        self._manifest = manifest
        self._own_file = own_file
        self._guard = threading.Lock()
        self._places: dict[str, list[Located]] | None = None
        self._own: dict[Path, OwnFile] = {}
        # Headers of large models take a while, so each is read once. All slices of one name are laid out alike.
        self._read: dict[Path | OwnFile, Places] = {}

    def changed(self) -> None:
        """Something came, went or was found to be damaged."""
        with self._guard:
            self._places = None

    def places(self, cid: str) -> list[Located]:
        """Every place of a blob, but for files of the user that changed since they were verified."""
        if not is_cid(cid):
            return []
        with self._guard:
            if self._places is None:
                self._gather()
            places = (self._places or {}).get(cid, [])
            return self._loose(cid) + [located for located in places if self._is_there(located)]

    def _loose(self, cid: str) -> list[Located]:
        path = self._folder.blob(cid)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return []
        return [Located(size, (Extent(path, 0, size),))]

    def _is_there(self, located: Located) -> bool:
        for path in {extent.path for extent in located.extents} - {None}:
            if path is not None and path in self._own and not self._own[path].unchanged():
                return False
        return True

    def _gather(self) -> None:
        self._places, self._own = {}, {}
        for cid, layers, path in self._folder.slices():
            manifest = self._manifest(cid)
            if manifest is not None:
                self._add(path, partial(in_slice, manifest, layers, path))
        for cid in self._folder.files():
            manifest, own = self._manifest(cid), self._own_file(cid)
            if manifest is not None and own is not None and own.unchanged():
                self._own[own.path] = own
                self._add(own, partial(_in_own_file, manifest, own.path))

    def _add(self, key: Path | OwnFile, read: Callable[[], Places]) -> None:
        assert self._places is not None
        try:
            if key not in self._read:
                self._read[key] = read()
        except (ConfigError, ContentError) as error:
            log.warning("a file of the store is left out: %s", error)
            return
        for cid, located in self._read[key].items():
            self._places.setdefault(cid, []).append(located)


def _in_own_file(manifest: Manifest, path: Path) -> Places:
    return in_file(manifest, read_header(path), path)
