"""The manifest of a model: what it consists of, as hashes. The BLAKE3 hash of the manifest is the model's CID.

Canonical JSON, so that everyone who describes the same model writes the same bytes and gets the same CID. It holds
nothing that could differ between two copies of a file, such as its path.
"""

import json
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from blake3 import blake3

from intelnav.domain.errors import ContentError
from intelnav.store.bundles import Bundle, bundle_names, bundle_of, bundles_of
from intelnav.store.cid import cid_of, is_cid
from intelnav.store.gguf import Tensor, padded
from intelnav.store.gguf_reader import MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_HEADER, MAX_KEY, MAX_TENSOR_NAME
from intelnav.store.model_file import MAX_BLOCKS, describe
from intelnav.store.tensor_types import TensorType, tensor_bytes

FORMAT = "intelnav/manifest/1"
MAX_MANIFEST = 16 * 1024 * 1024
MAX_FILE = 1 << 48


@dataclass(frozen=True, slots=True)
class Blob:
    """Some bytes, by their id and their number."""

    cid: str
    size: int


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """A bundle and its hash; a tensor's `offset` counts from the start of the bundle."""

    bundle: Bundle
    cid: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole model. `metadata` is the key-value block of its GGUF, `quantisation` the encoding of most bytes."""

    name: str
    architecture: str
    blocks: int
    quantisation: str
    alignment: int
    metadata: Blob
    bundles: tuple[BundleEntry, ...]

    @property
    def cid(self) -> str:
        """The model's id: `b3-` and 52 characters."""
        return cid_of(blake3(self.to_bytes()).digest())

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, ASCII."""
        document = {
            "format": FORMAT,
            "name": self.name,
            "architecture": self.architecture,
            "block_count": self.blocks,
            "quantisation": self.quantisation,
            "alignment": self.alignment,
            "metadata": {"hash": self.metadata.cid, "size": self.metadata.size},
            "bundles": [
                {
                    "name": entry.bundle.name,
                    "hash": entry.cid,
                    "size": entry.bundle.size,
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
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ContentError(f"this is no manifest: {str(error)[:200]}") from None
        # What was unknown, repeated or written otherwise is not in our own writing of it.
        if manifest.to_bytes() != data:
            raise ContentError("the manifest is not written canonically, or has unknown fields")
        return manifest

    @classmethod
    def _parse(cls, document: Any) -> Self:
        blocks = _count(document["block_count"], 1, MAX_BLOCKS)
        alignment = _count(document["alignment"], 8, MAX_ALIGNMENT)
        if alignment & (alignment - 1):
            raise ContentError(f"alignment {alignment} is no power of two")
        if len(document["bundles"]) != len(bundle_names(blocks)):
            raise ContentError(f"{len(document['bundles'])} bundles for {blocks} blocks")
        metadata = document["metadata"]
        return cls(
            name=_text(document["name"]),
            architecture=_text(document["architecture"]),
            blocks=blocks,
            quantisation=TensorType[_text(document["quantisation"])].name,
            alignment=alignment,
            metadata=Blob(_cid(metadata["hash"]), _count(metadata["size"], 1, MAX_HEADER)),
            bundles=tuple(
                _entry(item, name, alignment)
                for item, name in zip(document["bundles"], bundle_names(blocks), strict=True)
            ),
        )


def manifest_of(path: Path, between: Callable[[], None] = lambda: None) -> Manifest:
    """Hash the whole model at `path`; a slice is refused with ContentError, as is what is no sound model.

    `between` is called before each bundle, and may raise to give up.
    """
    model = describe(path)
    if not model.is_whole or model.model is not None:
        raise ContentError(f"{path}: this is a slice, a manifest describes a whole model")
    header = model.header
    bundles: list[BundleEntry] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        try:
            for bundle in bundles_of(model):
                between()
                bundles.append(_hashed(bundle, view, header.alignment))
            key_values = blake3(view[header.kv_start : header.kv_end]).digest()
        finally:
            view.release()
    sizes: dict[TensorType, int] = {}
    for tensor in header.tensors:
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
    return Manifest(
        name=model.name,
        architecture=model.architecture,
        blocks=model.blocks,
        quantisation=max(sizes, key=lambda kind: (sizes[kind], kind)).name,
        alignment=header.alignment,
        metadata=Blob(cid_of(key_values), header.kv_end - header.kv_start),
        bundles=tuple(bundles),
    )


def _hashed(bundle: Bundle, view: memoryview, alignment: int) -> BundleEntry:
    hasher = blake3(max_threads=blake3.AUTO)
    placed = []
    offset = 0
    for tensor in bundle.tensors:
        with view[tensor.offset : tensor.offset + tensor.size] as data:
            hasher.update(data)
        placed.append(Tensor(tensor.name, tensor.shape, tensor.type, offset, tensor.size))
        room = padded(tensor.size, alignment)
        hasher.update(bytes(room - tensor.size))
        offset += room
    return BundleEntry(Bundle(bundle.name, tuple(placed), bundle.size), cid_of(hasher.digest()))


def _entry(item: Any, name: str, alignment: int) -> BundleEntry:
    tensors: list[Tensor] = []
    names: set[str] = set()
    offset = 0
    for entry in item["tensors"]:
        shape = tuple(_count(number, 1, MAX_FILE) for number in entry["shape"])
        if not 1 <= len(shape) <= MAX_DIMENSIONS:
            raise ContentError(f"a tensor of {len(shape)} dimensions")
        kind = TensorType[_text(entry["type"])]
        size = _count(tensor_bytes(kind, shape), 1, MAX_FILE)
        tensor = Tensor(_text(entry["name"], MAX_TENSOR_NAME), shape, kind, offset, size)
        if bundle_of(tensor) != name or tensor.name in names or entry["offset"] != offset:
            raise ContentError(f"tensor {tensor.name!r} is repeated or misplaced in bundle {name}")
        names.add(tensor.name)
        tensors.append(tensor)
        offset += padded(size, alignment)
    if item["name"] != name or item["size"] != offset:
        raise ContentError(f"bundle {name} does not have the name and size that its tensors give")
    return BundleEntry(Bundle(name, tuple(tensors), offset), _cid(item["hash"]))


def _count(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ContentError(f"{str(value)[:40]} is no whole number from {low} to {high}")
    return value


def _text(value: Any, longest: int = MAX_KEY) -> str:
    if not isinstance(value, str) or not 1 <= len(value.encode(errors="replace")) <= longest:
        raise ContentError("a text is missing, empty or too long")
    return value


def _cid(value: Any) -> str:
    if not isinstance(value, str) or not is_cid(value):
        raise ContentError("a hash is not written as b3-...")
    return value
