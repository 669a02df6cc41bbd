from pathlib import Path

import pytest

from intelnav.store.durable import write_file


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"first")
    with path.open("rb") as old:
        write_file(path, b"second")
        assert old.read() == b"first"
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError):
        write_file(tmp_path / "file", b"data")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
