"""The manifest of a model: what it consists of, as hashes. The BLAKE3 hash of the manifest is the model's CID.

Canonical JSON, so that everyone who describes the same model writes the same bytes and gets the same CID. It holds
nothing that could differ between two copies of a file, such as its path.
"""

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from blake3 import blake3

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store import fields
from intelnav.store.bundles import Bundle, bundle_names, bundle_of, bundles_of, wanted_bundles
from intelnav.store.cid import cid_of
from intelnav.store.gguf import Tensor, encode_entry, padded
from intelnav.store.gguf_reader import (
    MAX_ALIGNMENT,
    MAX_DIMENSIONS,
    MAX_ENTRIES,
    MAX_HEADER,
    MAX_TENSOR_NAME,
)
from intelnav.store.model_file import MAX_BLOCKS, describe
from intelnav.store.pieces import PIECE as PIECE
from intelnav.store.pieces import Blob as Blob
from intelnav.store.pieces import BlobHasher, FileHasher
from intelnav.store.tensor_types import TensorType, tensor_bytes

FORMAT = "intelnav/manifest/1"
MAX_MANIFEST = 16 * 1024 * 1024
MAX_FILE = 1 << 48
# Keys that only a slice with layer 0 needs; a vocabulary takes megabytes.
TOKENIZER = "tokenizer."


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The whole GGUF: its size in bytes and its SHA-256 in hex, as model hubs publish it."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """A bundle and its content; a tensor's `offset` counts from the start of the bundle."""

    bundle: Bundle
    blob: Blob


@dataclass(frozen=True)
class Manifest:
    """A whole model. `quantisation` is the encoding of most bytes.

    The key-value block of its GGUF is split in two, each with its entries in the order of the file: `tokenizer` has
    those whose keys start so, `metadata` all others.
    """

    name: str
    architecture: str
    blocks: int
    quantisation: str
    alignment: int
    file: FileDigest
    metadata: Blob
    tokenizer: Blob
    bundles: tuple[BundleEntry, ...]

    @cached_property
    def cid(self) -> str:
        """The model's id: `b3-` and 52 characters."""
        return cid_of(blake3(self.to_bytes()).digest())

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Everything that the model consists of: metadata, tokenizer, and the bundles in their order."""
        return (self.metadata, self.tokenizer, *(entry.blob for entry in self.bundles))

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, ASCII."""
        document = {
            "format": FORMAT,
            "name": self.name,
            "architecture": self.architecture,
            "block_count": self.blocks,
            "quantisation": self.quantisation,
            "alignment": self.alignment,
            "file": {"size": self.file.size, "sha256": self.file.sha256},
            "metadata": _written(self.metadata),
            "tokenizer": _written(self.tokenizer),
            "bundles": [
                _written(entry.blob)
                | {
                    "name": entry.bundle.name,
                    "tensors": [
                        {"name": t.name, "type": t.type.name, "shape": t.shape, "offset": t.offset}
                        for t in entry.bundle.tensors
                    ],
                }
                for entry in self.bundles
            ],
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a manifest that anyone may have written; ContentError if it is not sound and canonical."""
        if len(data) > MAX_MANIFEST:
            raise ContentError(f"a manifest of {len(data)} bytes, at most {MAX_MANIFEST} are taken")
        try:
            manifest = cls._parse(json.loads(data))
            written = manifest.to_bytes()
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ContentError(f"this is no manifest: {str(error)[:200]}") from None
        # What was unknown, repeated or written otherwise is not in our own writing of it.
        if written != data:
            raise ContentError("the manifest is not written canonically, or has unknown fields")
        return manifest

    @classmethod
    def _parse(cls, document: Any) -> Self:
        if document["format"] != FORMAT:
            raise ContentError(f"the format is {str(document['format'])[:40]!r}, only {FORMAT!r} is read")
        blocks = fields.count(document["block_count"], 1, MAX_BLOCKS)
        alignment = fields.count(document["alignment"], 8, MAX_ALIGNMENT)
        if alignment & (alignment - 1):
            raise ContentError(f"alignment {alignment} is no power of two")
        if len(document["bundles"]) != len(bundle_names(blocks)):
            raise ContentError(f"{len(document['bundles'])} bundles for {blocks} blocks")
        digest = document["file"]
        manifest = cls(
            name=fields.label(document["name"]),
            architecture=fields.label(document["architecture"]),
            blocks=blocks,
            quantisation=TensorType[fields.text(document["quantisation"])].name,
            alignment=alignment,
            file=FileDigest(fields.count(digest["size"], 1, MAX_FILE), fields.sha256(digest["sha256"])),
            metadata=fields.blob(document["metadata"], 1, MAX_HEADER),
            tokenizer=fields.blob(document["tokenizer"], 0, MAX_HEADER),
            bundles=tuple(
                _entry(item, name, alignment)
                for item, name in zip(document["bundles"], bundle_names(blocks), strict=True)
            ),
        )
        manifest._check()
        return manifest

    def _check(self) -> None:
        """Hold what the parts say against each other."""
        tensors = [tensor for entry in self.bundles for tensor in entry.bundle.tensors]
        key_values = self.metadata.size + self.tokenizer.size
        if len(tensors) > MAX_ENTRIES or key_values > MAX_HEADER:
            raise ContentError(
                f"{len(tensors)} tensors and {key_values} bytes of metadata are more than is taken"
            )
        if sum(tensor.size for tensor in tensors) + key_values > self.file.size:
            raise ContentError(f"a file of {self.file.size} bytes cannot hold these tensors and metadata")
        if self.quantisation != _quantisation(tensors):
            raise ContentError(f"quantisation {self.quantisation} is not the encoding of most bytes")
        known: dict[str, Blob] = {}
        if any(known.setdefault(blob.cid, blob) != blob for blob in self.blobs):
            raise ContentError("one hash is given for two contents")


def needed(manifest: Manifest, layers: LayerRange) -> tuple[Blob, ...]:
    """The bundles of a slice with `layers` that have bytes, in the order of its file.

    Raises ContentError for layers that the model does not have.
    """
    wanted = {bundle.name for bundle in wanted_bundles([entry.bundle for entry in manifest.bundles], layers)}
    return tuple(entry.blob for entry in manifest.bundles if entry.bundle.name in wanted and entry.blob.size)


def kv_blobs(manifest: Manifest, layers: LayerRange) -> tuple[Blob, ...]:
    """The metadata that a slice with `layers` is made with: the tokenizer only if it starts at layer 0."""
    front = layers.start == 0 and manifest.tokenizer.size
    return (manifest.metadata, manifest.tokenizer) if front else (manifest.metadata,)


def slice_bytes(manifest: Manifest, layers: LayerRange) -> int:
    """How many bytes a slice with `layers` is made from; ContentError for layers that the model does not have."""
    return sum(blob.size for blob in (*kv_blobs(manifest, layers), *needed(manifest, layers)))


def manifest_of(path: Path, between: Callable[[], None] = lambda: None) -> Manifest:
    """Hash the whole model at `path`, which is read once from its start to its end.

    `between` is called every few megabytes, and may raise to give up. Raises ContentError for a slice and for what is
    no sound model, ConfigError or OSError if it cannot be read.
    """
    model = describe(path)
    if not model.is_whole or model.model is not None:
        raise ContentError(f"{path}: this is a slice, a manifest describes a whole model")
    header = model.header
    names = bundle_names(model.blocks)
    hashers = {name: BlobHasher() for name in names}
    with path.open("rb", buffering=0) as file, FileHasher(file, between) as hashed:
        for tensor in header.tensors:
            hasher = hashers[bundle_of(tensor)]
            hashed.read(tensor.offset, None)
            hashed.read(tensor.offset + tensor.size, hasher)
            # Whatever the file has as padding, in a bundle it is zeros.
            hasher.update(bytes(padded(tensor.size, header.alignment) - tensor.size))
        hashed.read(None, None)
        size, sha256 = hashed.result()
    key_values = {True: BlobHasher(), False: BlobHasher()}
    for key, value in header.metadata.items():
        key_values[key.startswith(TOKENIZER)].update(encode_entry(key, value))
    return Manifest(
        name=model.name,
        architecture=model.architecture,
        blocks=model.blocks,
        quantisation=_quantisation(header.tensors),
        alignment=header.alignment,
        file=FileDigest(size, sha256),
        metadata=key_values[False].blob(),
        tokenizer=key_values[True].blob(),
        bundles=tuple(
            BundleEntry(_placed(bundle, header.alignment), hashers[bundle.name].blob())
            for bundle in bundles_of(model)
        ),
    )


def _quantisation(tensors: Iterable[Tensor]) -> str:
    sizes: dict[TensorType, int] = {}
    for tensor in tensors:
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
    return max(sizes, key=lambda kind: (sizes[kind], kind)).name


def _placed(bundle: Bundle, alignment: int) -> Bundle:
    """The bundle with its tensors' offsets counted from its start."""
    placed = []
    offset = 0
    for tensor in bundle.tensors:
        placed.append(Tensor(tensor.name, tensor.shape, tensor.type, offset, tensor.size))
        offset += padded(tensor.size, alignment)
    return Bundle(bundle.name, tuple(placed), bundle.size)


def _written(blob: Blob) -> dict[str, Any]:
    return {"hash": blob.cid, "size": blob.size, "pieces": base64.b64encode(b"".join(blob.pieces)).decode()}


def _entry(item: Any, name: str, alignment: int) -> BundleEntry:
    tensors: list[Tensor] = []
    names: set[str] = set()
    offset = 0
    for entry in item["tensors"]:
        shape = tuple(fields.count(number, 1, MAX_FILE) for number in entry["shape"])
        if not 1 <= len(shape) <= MAX_DIMENSIONS:
            raise ContentError(f"a tensor of {len(shape)} dimensions")
        kind = TensorType[fields.text(entry["type"])]
        size = fields.count(tensor_bytes(kind, shape), 1, MAX_FILE)
        tensor = Tensor(fields.text(entry["name"], MAX_TENSOR_NAME), shape, kind, offset, size)
        if bundle_of(tensor) != name or tensor.name in names or entry["offset"] != offset:
            raise ContentError(f"tensor {tensor.name!r} is repeated or misplaced in bundle {name}")
        names.add(tensor.name)
        tensors.append(tensor)
        offset += padded(size, alignment)
    if item["name"] != name or item["size"] != offset:
        raise ContentError(f"bundle {name} does not have the name and size that its tensors give")
    return BundleEntry(Bundle(name, tuple(tensors), offset), fields.blob(item, 0, MAX_FILE))
