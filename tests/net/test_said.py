"""What a node remembers of what it said in the DHT."""

from pathlib import Path

import pytest

from intelnav.net.said import Said

KEY, OTHER = bytes(20), bytes([1]) * 20


def test_what_stands_outlives_the_process(tmp_path: Path) -> None:
    said = Said(tmp_path / "new" / "said.json")
    seq = said.next_seq(1000.0)
    said.note(KEY, stands=True)
    said.note(OTHER, stands=True)
    said.note(OTHER, stands=False)
    again = Said(tmp_path / "new" / "said.json")
    assert again.seq == seq
    assert again.standing() == {KEY}


def test_numbers_grow_whatever_the_clock_does(tmp_path: Path) -> None:
    said = Said(tmp_path / "said.json")
    numbers = [said.next_seq(unix) for unix in (1000.0, 1000.0, 10.0, 2000.0)]
    assert numbers == [1_000_000, 1_000_001, 1_000_002, 2_000_000]
    said.note(KEY, stands=True)
    assert Said(tmp_path / "said.json").next_seq(5.0) == 2_000_001


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"seq": 1}',
        b'{"seq": -1, "keys": []}',
        b'{"seq": 1.5, "keys": []}',
        b'{"seq": true, "keys": []}',
        b'{"seq": 1, "keys": ["00"]}',
        b'{"seq": 1, "keys": [7]}',
        b'{"seq": 9223372036854775807, "keys": []}',
        b"[" * 100_000,
    ],
)
def test_a_spoilt_file_holds_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "said.json"
    path.write_bytes(content)
    assert Said(path).seq == 0
    assert not Said(path).standing()
    Said(path).note(KEY, stands=True)
    assert Said(path).standing() == {KEY}


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "said").write_text("no folder")
    said = Said(tmp_path / "said" / "said.json")
    said.note(KEY, stands=True)
    assert said.standing() == {KEY}
