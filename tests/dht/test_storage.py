from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.keys import distance
from intelnav.dht.records import Offer
from intelnav.dht.storage import Storage, StorageLimits
from intelnav.domain.errors import Code, PeerError
from tests.dht.records import KEY, NOW, OFFER, peer, record

OWN = bytes(20)
HOST = "192.0.2.7"


def key_of(number: int) -> bytes:
    return sha256(number.to_bytes(8, "big")).digest()[:20]


@given(st.permutations([(1, 5), (1, 7), (1, 6), (2, 1), (2, 3), (3, 9)]))
def test_the_highest_seq_of_each_peer_stays_whatever_the_order(order: list[tuple[int, int]]) -> None:
    storage = Storage(OWN)
    highest: dict[int, int] = {}
    for number, seq in order:
        if seq > highest.get(number, -1):
            storage.add(record(number, seq=seq), HOST, NOW)
            highest[number] = seq
        else:
            with pytest.raises(PeerError) as caught:
                storage.add(record(number, seq=seq), HOST, NOW)
            assert caught.value.code == Code.BAD_REQUEST
    kept = {each.peer: each.seq for each in storage.records(KEY, NOW)}
    assert kept == {peer(1).peer: 7, peer(2).peer: 3, peer(3).peer: 9}


def test_the_same_record_once_more_changes_nothing() -> None:
    storage = Storage(OWN, StorageLimits(address=1))
    storage.add(record(), HOST, NOW)
    storage.add(record(), HOST, NOW)
    # Whoever passes it on gains no place, and the one who has it loses none.
    storage.add(record(), "198.51.100.1", NOW)
    storage.add(record(2), "198.51.100.1", NOW)
    with pytest.raises(PeerError):
        storage.add(record(3), HOST, NOW)


def test_another_record_with_the_same_seq_is_refused() -> None:
    storage = Storage(OWN)
    storage.add(record(), HOST, NOW)
    with pytest.raises(PeerError):
        storage.add(record(offer=Offer()), HOST, NOW)


def test_a_withdrawal_keeps_older_records_from_coming_back() -> None:
    storage = Storage(OWN)
    storage.add(record(seq=1), HOST, NOW)
    storage.add(record(seq=2, offer=Offer()), HOST, NOW)
    with pytest.raises(PeerError):
        storage.add(record(seq=1), HOST, NOW)
    [kept] = storage.records(KEY, NOW)
    assert kept.offer.withdraws


def test_records_expire_and_leave_nothing() -> None:
    storage = Storage(OWN)
    storage.add(record(1, lives=10), HOST, NOW)
    storage.add(record(2, lives=20), HOST, NOW)
    storage.add(record(1, seq=2, lives=30), HOST, NOW)
    assert len(storage) == 2
    storage.expire(NOW + 20)
    assert [each.peer for each in storage.records(KEY, NOW + 20)] == [peer(1).peer]
    storage.expire(NOW + 30)
    assert (len(storage), storage.keys) == (0, 0)
    assert not storage._owners
    assert not storage._networks


def test_a_peer_that_announces_all_the_time_takes_no_more_room() -> None:
    storage = Storage(OWN)
    storage.add(record(2, lives=100), HOST, NOW)
    for seq in range(3000):
        storage.add(record(1, seq=seq, lives=50), HOST, NOW)
    assert len(storage._expiry) < 1100
    storage.expire(NOW + 50)
    assert [each.peer for each in storage.records(KEY, NOW + 50)] == [peer(2).peer]
    storage.expire(NOW + 100)
    assert len(storage) == 0


def test_one_address_cannot_have_more_than_its_share() -> None:
    storage = Storage(OWN, StorageLimits(address=5, network=8))
    for number in range(20):
        try:
            storage.add(record(1, key=key_of(number)), HOST, NOW)
        except PeerError as error:
            assert error.code == Code.BUSY
            assert number >= 5
    assert len(storage) == 5
    for number in range(20, 40):
        try:
            storage.add(record(1, key=key_of(number)), "192.0.2.8", NOW)
        except PeerError:
            assert number >= 23
    assert len(storage) == 8
    storage.add(record(1, key=key_of(99)), "192.0.3.8", NOW)
    # What an address has may still be replaced.
    storage.add(record(1, key=key_of(0), seq=2), HOST, NOW)


def test_ten_thousand_from_one_host_crowd_out_nobody() -> None:
    storage = Storage(OWN)
    for number in range(1, 11):
        storage.add(record(number), f"198.51.{number}.1", NOW)
    refused = 0
    for number in range(100, 10_100):
        # The signature is not this room's business, and 10,000 of them take a while.
        try:
            storage.expects(FLOOD, HOST, NOW) if number > 200 else storage.add(record(number), HOST, NOW)
        except PeerError:
            refused += 1
    assert refused == 10_000 - StorageLimits().key_network
    assert len(storage) == 10 + StorageLimits().key_network
    for number in range(11, 40):
        storage.add(record(number), f"198.51.{number}.1", NOW)
    kept = {each.peer for each in storage.records(KEY, NOW)}
    assert {peer(number).peer for number in range(1, 40)} <= kept
    assert len(kept) <= StorageLimits().key


FLOOD = record(99_999)


def test_a_full_key_gives_way_from_where_most_come_from() -> None:
    storage = Storage(OWN, StorageLimits(key=6, key_network=4))
    for number in range(4):
        storage.add(record(number + 1, lives=100 + number), HOST, NOW)
    storage.add(record(5), "198.51.1.1", NOW)
    storage.add(record(6), "198.51.2.1", NOW)
    storage.add(record(7), "198.51.3.1", NOW)
    kept = {each.peer for each in storage.records(KEY, NOW)}
    assert peer(1).peer not in kept
    assert len(kept) == 6
    storage.add(record(8), "198.51.4.1", NOW)
    storage.expects(record(9), "198.51.5.1", NOW)
    with pytest.raises(PeerError) as caught:
        storage.expects(record(9), "198.51.4.1", NOW)
    assert caught.value.code == Code.BUSY


def test_with_all_keys_taken_the_farthest_gives_way() -> None:
    storage = Storage(OWN, StorageLimits(keys=8))
    keys = sorted((key_of(number) for number in range(9)), key=lambda key: distance(key, OWN))
    for key in keys[1:]:
        storage.add(record(key=key), HOST, NOW)
    storage.add(record(key=keys[0]), HOST, NOW)
    assert storage.keys == 8
    assert not list(storage.records(keys[-1], NOW))
    with pytest.raises(PeerError) as caught:
        storage.add(record(key=keys[-1]), HOST, NOW)
    assert caught.value.code == Code.BUSY


def test_what_is_expected_is_added() -> None:
    storage = Storage(OWN)
    storage.expects(record(), HOST, NOW)
    assert len(storage) == 0
    storage.add(record(), HOST, NOW)
    assert [each.offer for each in storage.records(KEY, NOW)] == [OFFER]
