"""Slices that travel: nodes with empty stores fetch just what they need, from each other or out of a remote GGUF."""

from pathlib import Path

import pytest

from intelnav.domain.slice import LayerRange
from intelnav.store.embedded import embedded_model
from intelnav.store.manifest import Manifest, manifest_of, needed
from tests.taps import Tap

pytestmark = pytest.mark.timeout(240)

PROMPT = "Once upon a time, in a village by the sea, there lived"
RANGES = ("0..8", "8..15", "15..22", "22..30")
# Of the bundles of a slice, on the wire and on disk.
OVERHEAD = 1.05


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Of the embedded model."""
    return manifest_of(embedded_model())


def bundles(manifest: Manifest, layers: str) -> int:
    return sum(blob.size for blob in needed(manifest, LayerRange.parse(layers)))


def on_disk(folder: Path) -> int:
    """Bytes that the disk gives to all files below."""
    return sum(512 * path.lstat().st_blocks for path in folder.rglob("*") if path.is_file())


def received(tap: Tap, request_bytes: int = 0) -> int:
    return sum(map(len, tap.seen)) - request_bytes
