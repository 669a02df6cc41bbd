"""A store whose process is killed at any moment: nothing verified is lost, and nothing else has a final name."""

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from intelnav.domain.slice import LayerRange
from intelnav.store.blobs import Store
from intelnav.store.manifest import Manifest
from tests.store.holdings import Donor

KILLS = 50
RANGES = (LayerRange(0, 3), LayerRange(8, 15), LayerRange(27, 30))


class Victims:
    """Processes that fill a store, one after the other."""

    def __init__(self, donor: Donor, root: Path, log: Path, manifest: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.store.filler",
            str(root),
            str(donor.path),
            str(manifest),
            str(log),
        ]
        self._process = subprocess.Popen(
            [*command, *map(str, RANGES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def run(self, seconds: float | None) -> tuple[bool, float]:
        """Kill one so long after it has opened the store: whether that caught it at work, and the time it had."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order, output = self._process.stdin, self._process.stdout
        order.write(b"\n")
        # The two are written by two processes.
        first = {output.readline().strip(), output.readline().strip()}
        assert b"go" in first
        pid = int((first - {b"go"}).pop())
        started = time.monotonic()
        if not select.select([output], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
        assert output.readline() == b"done\n"
        taken = time.monotonic() - started
        order.write(b"\n")
        code = int(output.readline())
        assert code in (0, -signal.SIGKILL)
        return code != 0, taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.communicate(timeout=10)


def noted(log: Path) -> dict[str, set[tuple[str, int]]]:
    """The pieces by their slice; a line that was cut off does not count."""
    found: dict[str, set[tuple[str, int]]] = {}
    for line in log.read_text().splitlines(keepends=True) if log.exists() else ():
        if line.endswith("\n"):
            layers, cid, index = line.split()
            found.setdefault(layers, set()).add((cid, int(index)))
    return found


def check(root: Path, donor: Donor, log: Path) -> int:
    """What a restart finds; returns how many slices are whole."""
    for path in (root / "manifests").glob("b3-*.json"):
        assert Manifest.from_bytes(path.read_bytes()).cid == path.stem
    with Store.open(root, None) as store:
        if store.manifest(donor.manifest.cid) is None:
            return 0
        assert store.verify(donor.manifest.cid) == []
        assert list(root.rglob("*.tmp")) == []
        for layers in RANGES:
            if store.slice(donor.manifest.cid, layers) is None and (pieces := noted(log).get(str(layers))):
                missing = {(blob.cid, index) for blob, index in store.begin(donor.manifest, layers).missing()}
                assert not missing & pieces
        return len(store.slices())


@pytest.mark.timeout(180)
def test_a_store_that_is_killed_at_any_moment_loses_nothing_and_shows_nothing_unverified(
    real: Donor, tmp_path: Path
) -> None:
    root, log, manifest = tmp_path / "filled", tmp_path / "log", tmp_path / "manifest.json"
    manifest.write_bytes(real.manifest.to_bytes())
    with Victims(real, root, log, manifest) as victims:
        killed, span = victims.run(None)
        assert not killed
        assert check(root, real, log) == len(RANGES)
        shutil.rmtree(root)
        log.unlink()
        seeded = random.Random(7)
        kills = 0
        for _ in range(4 * KILLS):
            if kills == KILLS:
                break
            kills += victims.run(seeded.uniform(0, span))[0]
            whole = check(root, real, log)
            lines = log.read_text().splitlines() if log.exists() else []
            # No piece was brought twice.
            assert len(lines) == len(set(lines))
            if whole == len(RANGES):
                shutil.rmtree(root)
                log.unlink()
        assert kills == KILLS
