"""What the models of a store are called, and what a name, a CID or an origin stands for."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from intelnav.domain.errors import ConfigError
from intelnav.domain.model_ref import ModelRef, model_name, origin_url
from intelnav.store.blobs import Store
from intelnav.store.catalog import EMBEDDED, Catalog, CatalogEntry
from intelnav.store.manifest import Manifest


class Names:
    """The names of what is in a store or in the catalog. Everything here may block on the disk.

    `environ` says where the model hub is, see `origin_url`.
    """

    def __init__(self, store: Store, catalog: Catalog, environ: Mapping[str, str] = os.environ) -> None:
        self._store = store
        self._catalog = catalog
        self._environ = environ

    def find(self, ref: ModelRef) -> Manifest | CatalogEntry | None:
        """What a name, a CID, a path or an origin stands for: a model of the store, else one of the catalog.

        None if it is neither, and so must be fetched or imported first; a name is an error then. Blocks on the disk.
        Raises ConfigError for a name that nothing or several models have.
        """
        if ref.kind == "cid":
            return self._store.manifest(ref.value) or self._catalog.of_cid(ref.value)
        if ref.kind == "path":
            return self._of_path(ref.value)
        called = ref.value if ref.kind == "name" else origin_url(ref, self._environ)
        found = [
            manifest
            for manifest in self._store.manifests()
            if called in (*self.of(manifest), *self._store.origins(manifest.cid))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            cids = ", ".join(manifest.cid for manifest in found)
            raise ConfigError(f"{ref} means several models here; write one of the CIDs {cids}")
        entry = self._catalog.named(ref.value) or self._catalog.of_origin(ref.value)
        if entry is None and ref.kind == "name":
            raise ConfigError(f"no model is called {ref}; {self._hint(ref.value)}")
        return entry

    def of(self, manifest: Manifest) -> list[str]:
        """What a model of the store is called: by the catalog, after its file, after where it came from, by itself."""
        entry = self.entry_of(manifest)
        file = self._store.file_of(manifest.cid)
        known = [entry.name] if entry is not None else []
        if file is not None and file != imported_file(self._store, manifest.cid):
            known.append(model_name(str(file)))
        known += [model_name(origin) for origin in self._store.origins(manifest.cid)]
        return [*known, model_name(f"/{manifest.name}")]

    def entry_of(self, manifest: Manifest) -> CatalogEntry | None:
        """The catalog's entry for a model of the store, as far as it can be told."""
        for entry in self._catalog.entries:
            if manifest.cid == entry.cid or manifest.file.sha256 == entry.sha256:
                return entry
        origins = self._store.origins(manifest.cid)
        return next(
            (entry for entry in self._catalog.entries if self._address(entry.origin) in origins), None
        )

    def _address(self, origin: str) -> str:
        return origin if origin == EMBEDDED else origin_url(ModelRef.parse(origin), self._environ)

    def _of_path(self, path: str) -> Manifest | None:
        for manifest in self._store.manifests():
            file = self._store.file_of(manifest.cid)
            if file is not None and str(file) == path:
                return manifest
        return None

    def _hint(self, name: str) -> str:
        here = [self.of(manifest)[0] for manifest in self._store.manifests()]
        return closest(name, [*here, *(entry.name for entry in self._catalog.entries)])


def imported_file(store: Store, cid: str) -> Path:
    """Where the store keeps the whole GGUF of a model that was imported over HTTP."""
    return store.root / "files" / f"{cid}.gguf"


def closest(word: str, known: list[str]) -> str:
    """The end of a sentence about a name that is not known."""
    close = get_close_matches(word, known, n=3)
    return f"did you mean {', '.join(close)}?" if close else f"known are: {', '.join(known)}"
