"""2,000 mutated manifests and GGUF headers: refused with a reason, or harmless, in bounded time and memory."""

import json
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intelnav.domain.errors import ConfigError, ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.blobs import Store
from intelnav.store.cid import cid_of
from intelnav.store.manifest import Manifest, manifest_of
from intelnav.store.model_file import describe
from tests.store.holdings import Donor

CASES = 1000
# Seconds of CPU that any one mutation may take, and KiB for all of them.
SLOWEST = 2.0
MEMORY = 200 * 1024

COUNTS: list[Any] = [
    0,
    -1,
    1,
    2**31,
    2**32 - 1,
    2**48,
    2**63,
    2**64 - 1,
    2**64,
    10**30,
    1.5,
    True,
    None,
    "1",
    [],
    {},
]
TEXTS = [
    "",
    ".",
    "..",
    "../../../../tmp/escaped",
    "/etc/passwd",
    "/dev/zero",
    "b3-../../../../escaped",
    "b3-" + "a" * 51 + "/",
    "b3-" + "a" * 51 + "b",
    "b3-" + "a" * 52 + "\n",
    "B3-" + "A" * 52,
    "a\0b",
    "\x1b[2J",
    "\ud800",
    "x" * 70_000,
    "%s%n",
    "blk.0.../../x",
    "blk.99999999999999999999.x",
    "blk.-1.attn_q.weight",
    "token_embd.weight",
    cid_of(bytes(32)),
    "F32",
    "F99",
]


def snapshot(folder: Path, apart_from: Path) -> dict[Path, tuple[int, int]]:
    return {
        path: (found.st_size, found.st_mtime_ns)
        for path in folder.rglob("*")
        if apart_from not in (path, *path.parents) and (found := path.lstat()) and path.is_file()
    }


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    found = []
    waiting = [document]
    while waiting:
        here = waiting.pop()
        for key in list(here) if isinstance(here, dict) else range(len(here)):
            found.append((here, key))
            if isinstance(here[key], dict | list):
                waiting.append(here[key])
    return found


def mutated_document(sound: bytes, dice: random.Random) -> bytes:
    document = json.loads(sound)
    for _ in range(dice.choice([1, 1, 1, 2, 5])):
        here, key = dice.choice(places(document))
        kind = dice.randrange(6)
        if kind == 0:
            here[key] = dice.choice(COUNTS)
        elif kind == 1:
            here[key] = dice.choice(TEXTS)
        elif kind == 2:
            del here[key]
        elif kind == 3:
            # Tensors over each other, bundles in each other's place, one hash for two.
            other, place = dice.choice(places(document))
            here[key] = json.loads(json.dumps(other[place]))
        elif kind == 4 and type(here[key]) is int:
            here[key] += dice.choice([-32, -1, 1, 32, 2**20, 2**40])
        elif isinstance(here, list):
            here += [here[key]] * dice.choice([1, 1, 1, 20_000])
            break
        else:
            here[f"{key} "] = here[key]
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def mutated_bytes(sound: bytes, dice: random.Random, end: int) -> bytes:
    """Bits flipped, numbers replaced, and parts cut out, doubled or exchanged before byte `end`."""
    data = bytearray(sound)
    for _ in range(dice.choice([1, 1, 2, 8])):
        at = dice.randrange(end)
        kind = dice.randrange(5)
        if kind <= 1:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 2:
            number = dice.choice([c for c in COUNTS if type(c) is int and 0 <= c < 2**64])
            width = dice.choice([4, 8])
            data[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
        elif kind == 3:
            length = dice.choice([1, 8, 100])
            data[at : at + length] = data[at : at + length] * dice.choice([0, 2])
        else:
            text = dice.choice(TEXTS).encode(errors="replace")[:50]
            data[at : at + len(text)] = text
    return bytes(data[: dice.choice([len(data)] * 20 + [end // 2, 24, 23, 0])])


def bounded(attempt: Callable[[bytes], None], cases: list[bytes]) -> int:
    """Try each case; returns how many were refused."""
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in cases:
        started = time.process_time()
        try:
            attempt(data)
        except (ContentError, ConfigError) as error:
            assert str(error)
            assert len(str(error)) < 3000
            refused += 1
        assert time.process_time() - started < SLOWEST
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY
    return refused


def hosted(store: Store, donor: Donor, manifest: Manifest) -> None:
    """Do with a manifest what a node does with one that it was sent, given the bytes of the sound one."""
    blobs = {blob.cid: blob for blob in donor.manifest.blobs}
    store.add_manifest(manifest)
    for blob in (manifest.metadata, manifest.tokenizer):
        store.put_blob(blob, donor.store.blob(blobs.get(blob.cid, donor.manifest.metadata)) or b"")
    for layers in (LayerRange(0, 1), LayerRange(2, 4), LayerRange(manifest.blocks - 1, manifest.blocks)):
        partial = store.begin(manifest, layers)
        for blob, index in partial.missing()[:20]:
            if blob.cid in blobs:
                partial.write(blob, index, donor.piece(blobs[blob.cid], index))
        partial.finish()


@pytest.mark.timeout(180)
def test_mutated_manifests_are_refused_or_harmless(donor: Donor, tmp_path: Path) -> None:
    dice = random.Random(3)
    sound = donor.manifest.to_bytes()
    cases = [mutated_document(sound, dice) for _ in range(CASES * 7 // 10)]
    cases += [mutated_bytes(sound, dice, len(sound)) for _ in range(CASES - len(cases))]
    root = tmp_path / "hostile" / "store"
    before = snapshot(tmp_path, root)
    with Store.open(root, None) as store:

        def attempt(data: bytes) -> None:
            hosted(store, donor, Manifest.from_bytes(data))

        assert bounded(attempt, cases) > 0.9 * CASES
        for manifest in store.manifests():
            # Whatever got a final name has the hashes of its manifest.
            assert all(fault.layers is None for fault in store.verify(manifest.cid))
    assert snapshot(tmp_path, root) == before


@pytest.mark.timeout(180)
def test_mutated_headers_are_refused_or_harmless(donor: Donor, tmp_path: Path) -> None:
    dice = random.Random(5)
    sound = donor.path.read_bytes()
    end = describe(donor.path).header.tensors[0].offset
    cases = [mutated_bytes(sound, dice, end) for _ in range(CASES)]
    root, path = tmp_path / "hostile" / "store", tmp_path / "sent" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(sound)
    before = snapshot(tmp_path, root)
    with Store.open(root, None) as store:

        def attempt(data: bytes) -> None:
            path.write_bytes(data)
            manifest = manifest_of(path)
            # What we write ourselves, we read.
            assert Manifest.from_bytes(manifest.to_bytes()) == manifest
            store.add_file(manifest, path, None)
            Donor(store, path).fill(store, LayerRange(2, 4))
            assert store.verify(manifest.cid) == []
            store.remove(manifest.cid, None)

        assert bounded(attempt, cases) > CASES / 4
    after = snapshot(tmp_path, root)
    assert set(after) == set(before)
    assert {p: s for p, s in after.items() if p != path} == {p: s for p, s in before.items() if p != path}
