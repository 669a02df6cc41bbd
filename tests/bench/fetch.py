"""What the store costs: a slice over loopback, a node's start with a filled store, and the import of a model."""

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import httpx
from blake3 import blake3

from intelnav.domain.advert import Address
from intelnav.domain.slice import LayerRange
from intelnav.net.fetch import fetch_slice
from intelnav.net.progress import Progress
from intelnav.net.sources import PeerSource
from intelnav.store.blobs import Store
from intelnav.store.embedded import embedded_model
from intelnav.store.manifest import Manifest, manifest_of
from tests.bench.results import show
from tests.daemons import daemons
from tests.fetching import chunk_process

LAYERS = LayerRange(8, 15)
REPEATS = 15
STARTS = 5
CHUNK = 4 << 20
AIM_FETCH = 1.3
AIM_START = 2.0


def measure() -> dict[str, Any]:
    """Figures of all three; times in seconds."""
    manifest = manifest_of(embedded_model())
    with TemporaryDirectory() as folder:
        root = Path(folder)
        with chunk_process(root / "seeder", embedded_model()) as address:
            fetches, copies = anyio.run(
                _fetches, root, manifest, address, backend_options={"use_uvloop": True}
            )
        starts = [_start(root / f"node{number}", manifest) for number in range(STARTS)]
    imports, hashings = _paired(
        REPEATS, lambda: _timed(manifest_of, embedded_model()), lambda: _timed(_hashed, embedded_model())
    )
    size = manifest.file.size
    figures = {
        "fetch": {"seconds": median(fetches), "plain_copy": median(copies), "aim": AIM_FETCH},
        "start": {"seconds": median(starts), "aim": AIM_START},
        "import": {
            "bytes_per_second": size / median(imports),
            "plain_hashing": size / median(hashings),
        },
    }
    ratio = median(a / b for a, b in zip(fetches, copies, strict=True))
    figures["fetch"]["ratio"] = ratio
    speed = median(b / a for a, b in zip(imports, hashings, strict=True))
    figures["import"]["ratio"] = speed
    show(
        f"Store: layers {LAYERS} of {manifest.name}, medians",
        ("", "ours", "plain", "ratio", "aim"),
        [
            (
                "fetch over loopback / copy with hashing, ms",
                1e3 * median(fetches),
                1e3 * median(copies),
                ratio,
                AIM_FETCH,
            ),
            ("node start to a ready slice, s", median(starts), "", "", AIM_START),
            (
                "import / BLAKE3 and SHA-256, MB/s",
                size / median(imports) / 1e6,
                size / median(hashings) / 1e6,
                speed,
                "",
            ),
        ],
    )
    return figures


async def _fetches(root: Path, manifest: Manifest, address: Address) -> tuple[list[float], list[float]]:
    """Paired runs, in turn, so that both have the same neighbours on the machine."""
    fetches, copies = [], []
    async with httpx.AsyncClient(trust_env=False) as client:
        with Store.open(root / "store", None) as store:
            for number in range(REPEATS + 1):
                store.remove(manifest.cid, None)
                start = time.perf_counter()
                path = await fetch_slice(store, manifest, LAYERS, [PeerSource(client, address)], Progress())
                fetched = time.perf_counter() - start
                copied = _timed(_copy, path, root / "copy")
                # The first warms caches up.
                if number:
                    fetches.append(fetched)
                    copies.append(copied)
    return fetches, copies


def _copy(source: Path, target: Path) -> None:
    """What any copy does that is to survive a crash, and knows what it has copied."""
    draft = target.with_suffix(".draft")
    hasher = blake3()
    with source.open("rb", buffering=0) as read, draft.open("wb", buffering=0) as write:
        while chunk := read.read(CHUNK):
            hasher.update(chunk)
            write.write(chunk)
        os.fsync(write.fileno())
    draft.replace(target)


def _hashed(path: Path) -> None:
    """Both hashes at once, each in a thread of its own: neither holds the interpreter's lock."""
    whole, sha256 = blake3(max_threads=blake3.AUTO), hashlib.sha256()
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as pool:
        while chunk := file.read(CHUNK):
            summed = pool.submit(sha256.update, chunk)
            whole.update(chunk)
            summed.result()


def _start(folder: Path, manifest: Manifest) -> float:
    """Seconds from the start of a node, whose store has its slice, until that is ready."""
    with daemons(folder, "node") as (daemon,):
        daemon.configure(
            slices=[{"model": str(embedded_model()), "layers": str(LAYERS)}],
            network={"listen": "127.0.0.1:0"},
            store={"chunks": "none"},
        )
        daemon.start()
        daemon.until_ready()
        daemon.stop()
        start = time.perf_counter()
        daemon.start()
        daemon.until_ready()
        return time.perf_counter() - start


def _timed(work: Callable[..., object], *arguments: Path) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def _paired(
    repeats: int, one: Callable[[], float], other: Callable[[], float]
) -> tuple[list[float], list[float]]:
    pairs = [(one(), other()) for _ in range(repeats)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
