import os
from pathlib import Path

import pytest

from intelnav.store.notes import MAX_ORIGINS, Note, OwnFile


def test_a_file_is_known_as_long_as_it_does_not_change(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a \xff file")
    path.write_bytes(b"x")
    note = Note.from_bytes(Note(OwnFile.at(path)).to_bytes())
    assert note.file is not None
    assert note.file.path == path
    assert note.file.unchanged()
    path.write_bytes(b"xy")
    assert not note.file.unchanged()
    path.unlink()
    assert not note.file.unchanged()


def test_the_newest_origins_are_kept(tmp_path: Path) -> None:
    note = Note()
    for number in (*range(MAX_ORIGINS + 3), 5):
        note = note.with_origin(f"https://example.org/{number}")
    assert len(note.origins) == MAX_ORIGINS
    assert note.origins[-1].endswith("/5")
    assert Note.from_bytes(note.to_bytes()) == note


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b'{"file":{},"origins":[]}', b"\xff"])
def test_a_damaged_note_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        Note.from_bytes(data)
