"""A disk that is full: nothing breaks, and it goes on once there is room."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from intelnav.domain.errors import StoreFull
from intelnav.domain.slice import LayerRange
from intelnav.store.blobs import Store
from intelnav.store.manifest import slice_bytes
from tests.store.holdings import Donor, manifest_named

SMALL, LARGE = LayerRange(8, 9), LayerRange(10, 17)
MIB = 1 << 20


def mount(folder: Path, options: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"a tmpfs of a few megabytes cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk of a few megabytes")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "size=12m")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], timeout=20, check=True)


def test_a_slice_that_does_not_fit_is_refused_before_it_is_begun(real: Donor, disk: Path) -> None:
    with Store.open(disk / "store", None) as store:
        real.fill(store, SMALL)
        with pytest.raises(StoreFull, match=r"its disk has \d+ bytes free"):
            store.make_room(slice_bytes(real.manifest, LARGE), {(real.manifest.cid, SMALL)})
        assert store.verify(real.manifest.cid) == []
        assert [held.layers for held in store.slices()] == [SMALL]


def test_a_disk_that_fills_up_is_an_os_error_and_it_goes_on_once_there_is_room(
    real: Donor, disk: Path
) -> None:
    with Store.open(disk / "store", None) as store:
        real.fill(store, SMALL)
        partial = real.begin(store, LARGE)
        pieces = partial.missing()
        with pytest.raises(OSError) as caught:
            for blob, index in pieces:
                partial.write(blob, index, real.piece(blob, index))
        assert caught.value.errno == errno.ENOSPC
        failed = partial.missing()
        assert 0 < len(failed) < len(pieces)
        # Nothing else was harmed, and smaller things fail as cleanly.
        with pytest.raises(OSError):
            store.add_manifest(manifest_named(real.manifest, "another"))
        assert [m.name for m in store.manifests()] == [real.manifest.name]
        assert list((disk / "store").rglob("*.tmp")) == []
        assert store.verify(real.manifest.cid) == []
        assert store.slice(real.manifest.cid, SMALL) is not None
        # The same process goes on, and so does the next one.
        mount(disk, "remount,size=64m")
        partial.write(*failed[0], real.piece(*failed[0]))
    with Store.open(disk / "store", None) as store:
        partial = real.begin(store, LARGE)
        assert partial.missing() == failed[1:]
        for blob, index in partial.missing():
            partial.write(blob, index, real.piece(blob, index))
        partial.finish()
        assert store.verify(real.manifest.cid) == []


def test_what_is_not_used_gives_way_on_a_full_disk(real: Donor, disk: Path) -> None:
    with Store.open(disk / "store", None) as store:
        for layers in (SMALL, LayerRange(9, 11)):
            real.fill(store, layers)
        need = 7 * MIB
        store.make_room(need, {(real.manifest.cid, SMALL)})
        assert [held.layers for held in store.slices()] == [SMALL]
        store.make_room(need, {(real.manifest.cid, SMALL)})
