"""Where the bytes of blobs lie in the files of this machine."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.gguf import Header, encode_entry, padded
from intelnav.store.gguf_reader import read_header
from intelnav.store.manifest import TOKENIZER, Blob, Manifest, kv_blobs, needed

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes of a file from `offset` on, or that many zeros where there is no path."""

    path: Path | None
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Located:
    """A blob of `size` bytes, put together from extents."""

    size: int
    extents: tuple[Extent, ...]

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end` of the blob, in chunks of at most CHUNK.

        Raises OSError if a file cannot be read, ContentError if one ends too early.
        """
        at = 0
        for extent in self.extents:
            first, last = max(start - at, 0), min(end - at, extent.length)
            at += extent.length
            if first < last:
                yield from _chunks(extent, first, last)


def _chunks(extent: Extent, first: int, last: int) -> Iterator[bytes]:
    if extent.path is None:
        for at in range(first, last, CHUNK):
            yield bytes(min(CHUNK, last - at))
        return
    with extent.path.open("rb", buffering=0) as file:
        file.seek(extent.offset + first)
        left = last - first
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise ContentError(f"{extent.path} ends {left} bytes too early")
            left -= len(chunk)
            yield chunk


def in_blob_file(blob: Blob, path: Path) -> dict[str, Located]:
    """A blob that is a file of its own."""
    return {blob.cid: Located(blob.size, (Extent(path, 0, blob.size),))}


def in_slice(manifest: Manifest, layers: LayerRange, path: Path) -> dict[str, Located]:
    """The blobs in the slice at `path`: its bundles, and the tokenizer if it starts at layer 0.

    Raises ConfigError or ContentError if the file's header cannot be read.
    """
    header = read_header(path)
    found: dict[str, Located] = {}
    if not header.tensors:
        raise ContentError(f"{path} has no tensors")
    at = min(tensor.offset for tensor in header.tensors)
    for blob in needed(manifest, layers):
        found[blob.cid] = Located(blob.size, (Extent(path, at, blob.size),))
        at += blob.size
    for blob in kv_blobs(manifest, layers)[1:]:
        found[blob.cid] = Located(blob.size, (Extent(path, header.kv_end - blob.size, blob.size),))
    return found


def in_file(manifest: Manifest, header: Header, path: Path) -> dict[str, Located]:
    """All blobs of a model in its whole GGUF at `path`, which has this header and is what the manifest was made from.

    The padding of a bundle is zeros, whatever the file has there. Raises ContentError if a tensor is missing.
    """
    places = {tensor.name: tensor for tensor in header.tensors}
    found: dict[str, Located] = {}
    for entry in manifest.bundles:
        pieces: list[Extent] = []
        for tensor in entry.bundle.tensors:
            place = places.get(tensor.name)
            if place is None or (place.shape, place.type) != (tensor.shape, tensor.type):
                raise ContentError(
                    f"{path} is not the file of {manifest.name}: it has no such {tensor.name!r}"
                )
            pieces.append(Extent(path, place.offset, tensor.size))
            pieces.append(Extent(None, 0, padded(tensor.size, manifest.alignment) - tensor.size))
        found[entry.blob.cid] = Located(entry.blob.size, _joined(pieces))
    for blob, tokenizer in ((manifest.metadata, False), (manifest.tokenizer, True)):
        found[blob.cid] = Located(blob.size, _joined(_entries(header, path, tokenizer)))
        if blob.size != sum(extent.length for extent in found[blob.cid].extents):
            raise ContentError(f"{path} is not the file of {manifest.name}: its metadata have another size")
    return found


def _entries(header: Header, path: Path, tokenizer: bool) -> Iterator[Extent]:
    at = header.kv_start
    for key, value in header.metadata.items():
        length = len(encode_entry(key, value))
        if key.startswith(TOKENIZER) == tokenizer:
            yield Extent(path, at, length)
        at += length


def _joined(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """The same bytes in as few extents as possible."""
    joined: list[Extent] = []
    for extent in extents:
        last = joined[-1] if joined else None
        if (
            last
            and last.path == extent.path
            and (last.path is None or last.offset + last.length == extent.offset)
        ):
            joined[-1] = Extent(last.path, last.offset, last.length + extent.length)
        elif extent.length:
            joined.append(extent)
    return tuple(joined)
