import json
import os
from pathlib import Path

import pytest

from intelnav.dht.contacts import Contact
from intelnav.net.dht_contacts import KEPT, KnownContacts


def contact(number: int) -> Contact:
    return Contact(number.to_bytes(32, "big"), f"10.0.{number >> 8}.{number & 255}", 7717)


def test_the_last_that_answered_survive(tmp_path: Path) -> None:
    path = tmp_path / "data" / "contacts.json"
    known = KnownContacts(path)
    assert len(known) == 0
    for number in range(1, KEPT + 51):
        known.answered(contact(number))
    known.answered(contact(60))
    known.save()
    again = KnownContacts(path)
    assert list(again.all()) == list(known.all())
    assert len(again) == KEPT
    assert contact(50) not in again.all()
    assert list(again.all())[-1] == contact(60)
    assert os.listdir(path.parent) == ["contacts.json"]


def test_without_a_change_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "contacts.json"
    known = KnownContacts(path)
    known.answered(contact(1))
    known.save()
    path.unlink()
    known.save()
    assert not path.exists()


def test_a_node_may_do_without_a_file() -> None:
    known = KnownContacts(None)
    known.answered(contact(1))
    known.save()
    assert list(known.all()) == [contact(1)]


PEER = "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq"
SPOILT = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b"[" * 100_000,
    json.dumps({"contacts": 7}).encode(),
    json.dumps({"contacts": [7]}).encode(),
    json.dumps({"contacts": [[7, "10.0.0.1", 7]]}).encode(),
    json.dumps({"contacts": [["x", "10.0.0.1", 7]]}).encode(),
    json.dumps({"contacts": [[PEER, "example.org", 7]]}).encode(),
    json.dumps({"contacts": [[PEER, "10.0.0.1", 0]]}).encode(),
    json.dumps({"contacts": [[PEER, "10.0.0.1", 70000]]}).encode(),
    json.dumps({"contacts": [[PEER, "10.0.0.1", "7"]]}).encode(),
    json.dumps({"contacts": [[PEER, 7, 7]]}).encode(),
]


@pytest.mark.parametrize("content", SPOILT)
def test_a_spoilt_file_holds_nothing_and_is_replaced(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "contacts.json"
    path.write_bytes(content)
    known = KnownContacts(path)
    assert len(known) == 0
    assert "holds no contacts" in caplog.text
    known.answered(contact(1))
    known.save()
    assert list(KnownContacts(path).all()) == [contact(1)]


def test_a_file_that_cannot_be_written_is_said_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    known = KnownContacts(tmp_path / "file" / "contacts.json")
    known.answered(contact(1))
    known.save()
    assert "cannot be kept" in caplog.text
