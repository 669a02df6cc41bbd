"""Hashing again what is held, to find what the disk or somebody else changed."""

from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from intelnav.domain.errors import ConfigError, ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.cid import cid_of
from intelnav.store.extents import Located, in_file, in_slice
from intelnav.store.gguf_reader import read_header
from intelnav.store.layout import SlicePlan
from intelnav.store.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that is not what it should be; `layers` is None if it is no slice."""

    model: str
    layers: LayerRange | None
    path: Path
    reason: str


def is_sound(cid: str, located: Located) -> bool:
    """Whether the bytes there have this id; OSError or ContentError if they cannot be read."""
    hasher = blake3(max_threads=blake3.AUTO)
    for chunk in located.read(0, located.size):
        hasher.update(chunk)
    return cid_of(hasher.digest()) == cid


def fault_in_slice(manifest: Manifest, layers: LayerRange, path: Path, plan: SlicePlan) -> str | None:
    """What is wrong with the slice at `path`, which should be as planned; None if nothing is."""
    try:
        return fault_in_frame(path, plan) or _first_fault(in_slice(manifest, layers, path))
    except (ConfigError, ContentError, OSError) as error:
        return str(error)


def fault_in_frame(path: Path, plan: SlicePlan) -> str | None:
    """The same of its header and its size alone; OSError if it cannot be read."""
    with path.open("rb") as file:
        if file.read(len(plan.header)) != plan.header or path.stat().st_size != plan.size:
            return "its header or its size is not that of this slice"
    return None


def fault_in_file(manifest: Manifest, path: Path) -> str | None:
    """What is wrong with the whole GGUF at `path`, which should be that of the manifest; None if nothing is."""
    try:
        return _first_fault(in_file(manifest, read_header(path), path))
    except (ConfigError, ContentError, OSError) as error:
        return str(error)


def _first_fault(places: dict[str, Located]) -> str | None:
    return next(
        (f"{cid} does not have its hash" for cid, at in places.items() if not is_sound(cid, at)), None
    )
