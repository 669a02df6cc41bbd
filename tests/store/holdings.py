"""Filling a store in tests: pieces come from a store on this machine that has the whole model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from intelnav.domain.slice import LayerRange
from intelnav.store.blobs import PartialSlice, Store
from intelnav.store.manifest import Blob, Manifest, kv_blobs, manifest_of

MIDDLE = LayerRange(2, 4)
FRONT = LayerRange(0, 2)
TAIL = LayerRange(4, 6)


class Donor:
    """A whole model in a store, to take blobs and pieces from."""

    def __init__(self, store: Store, path: Path) -> None:
        self.path = path
        self.manifest = manifest_of(path)
        self.store = store
        store.add_file(self.manifest, path, None)

    def piece(self, blob: Blob, index: int) -> bytes:
        """The bytes of one piece."""
        located = self.store.locate(blob.cid)
        assert located is not None
        return b"".join(located.read(*blob.bounds(index)))

    def begin(self, store: Store, layers: LayerRange) -> PartialSlice:
        """Bring the key-value blobs and begin a slice."""
        for blob in kv_blobs(self.manifest, layers):
            data = self.store.blob(blob)
            assert data is not None
            store.put_blob(blob, data)
        return store.begin(self.manifest, layers)

    def fill(self, store: Store, layers: LayerRange) -> Path:
        """Bring a whole slice."""
        partial = self.begin(store, layers)
        for blob, index in partial.missing():
            partial.write(blob, index, self.piece(blob, index))
        return partial.finish()


@contextmanager
def donor_of(path: Path, root: Path) -> Iterator[Donor]:
    """A donor of the model at `path`, with its store at `root`."""
    with Store.open(root, None) as store:
        yield Donor(store, path)


def manifest_named(manifest: Manifest, name: str) -> Manifest:
    """The same model under another name, and so another CID."""
    document = manifest.to_bytes().replace(f'"name":"{manifest.name}"'.encode(), f'"name":"{name}"'.encode())
    return Manifest.from_bytes(document)
