from pathlib import Path

import pytest

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.folder import Folder, on_disk

CID = "b3-" + "a" * 52
TRICKS = ["", "..", "../../etc/passwd", "/etc/passwd", CID + "/..", CID + "\n", CID.upper(), "b3-" + "." * 52]


@pytest.mark.parametrize("trick", TRICKS)
def test_what_is_no_cid_becomes_part_of_no_path(tmp_path: Path, trick: str) -> None:
    folder = Folder(tmp_path)
    for path_of in (folder.manifest, folder.blob, folder.file):
        with pytest.raises(ContentError, match="is no content id"):
            path_of(trick)
    for slice_of in (folder.slice, folder.part):
        with pytest.raises(ContentError, match="is no content id"):
            slice_of(trick, LayerRange(0, 1))


def test_only_what_is_named_as_it_should_be_is_listed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.prepare()
    whole, part = folder.slice(CID, LayerRange(2, 4)), folder.part(CID, LayerRange(4, 6))
    whole.parent.mkdir()
    for path in (whole, part, whole.with_name("4-2.gguf"), whole.with_name("2-4.gguf.bak")):
        path.write_bytes(b"x")
    (tmp_path / "slices" / "other").mkdir()
    (tmp_path / "slices" / "other" / "0-1.gguf").write_bytes(b"x")
    (tmp_path / "manifests" / "notes.json").write_bytes(b"x")
    folder.manifest(CID).write_bytes(b"x")
    assert list(folder.slices()) == [(CID, LayerRange(2, 4), whole)]
    assert list(folder.parts()) == [(CID, LayerRange(4, 6), part)]
    assert folder.models() == [CID]


def test_what_a_crash_left_is_removed_but_not_a_slice_under_construction(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.prepare()
    part = folder.part(CID, LayerRange(4, 6))
    part.parent.mkdir()
    part.write_bytes(b"x")
    stale = tmp_path / "blobs" / f".{CID}.tmp"
    stale.write_bytes(b"x")
    folder.prepare()
    assert part.exists()
    assert not stale.exists()


def test_holes_take_no_disk(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.prepare()
    with folder.blob(CID).open("wb") as file:
        file.write(bytes(100))
        file.truncate(1 << 30)
    assert 0 < on_disk(folder.blob(CID)) == folder.used() < 1 << 20
