import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.contacts import Contact, nearest
from intelnav.net.dht_table import BUCKET, ENOUGH, PER_NETWORK, Table

OWN = b"o" * 32


def contact(number: int, host: str = "10.0.0.1") -> Contact:
    return Contact(random.Random(number).randbytes(32), host, 7)


@given(st.integers(0, 2**32), st.integers(0, 300), st.binary(min_size=20, max_size=20))
def test_nearest_is_nearest_of_all(seed: int, count: int, target: bytes) -> None:
    table = Table(OWN)
    for number in range(count):
        table.add(contact(seed + number))
    assert table.nearest(target, 8) == nearest(table.contacts(), target, 8)
    assert len(table) == len(table.contacts()) <= count


def test_the_nearest_to_itself_all_have_a_place() -> None:
    table = Table(OWN)
    contacts = [contact(number) for number in range(2000)]
    for each in contacts:
        table.add(each)
    assert table.nearest(table._me.id, 8) == nearest(contacts, table._me.id, 8)
    assert 100 < len(table) < 600


@given(st.integers(0, 2**32), st.integers(0, 300))
def test_of_a_thin_part_too_little_is_known_and_nobody_near_is_in_it(seed: int, count: int) -> None:
    table = Table(OWN)
    for number in range(count):
        table.add(contact(seed + number))
    near = [each.place for each in table.nearest(table._me.id, 8)]
    for low, high in table.thin_parts():
        assert sum(low <= each.place <= high for each in table.contacts()) < ENOUGH
        assert not any(low <= place <= high for place in near)
        assert not low <= table._me.long_id <= high


def test_a_node_that_met_only_its_own_half_knows_that_the_other_is_missing() -> None:
    table, other = Table(OWN), []
    top = table._me.long_id >> 159
    for number in range(200):
        each = contact(number)
        if each.place >> 159 == top:
            table.add(each)
        else:
            other.append(each)
    half = (1 - top) << 159
    assert table.thin_parts()[0] == (half, half + 2**159 - 1)
    for each in other[:ENOUGH]:
        table.add(each)
    assert (half, half + 2**159 - 1) not in table.thin_parts()


def test_a_full_bucket_names_its_oldest_and_the_newcomer_takes_over_when_that_is_gone() -> None:
    table, doubtful = Table(OWN), None
    for number in range(2000):
        newcomer = contact(number)
        doubtful = table.add(newcomer)
        if doubtful is not None:
            break
    assert doubtful is not None
    assert newcomer not in table
    assert not table.has_room(newcomer)
    table.failed(doubtful)
    assert doubtful in table
    assert doubtful not in table.nearest(doubtful.id, 8)
    table.failed(doubtful)
    assert doubtful not in table
    assert newcomer in table


def test_who_was_heard_last_is_doubted_last() -> None:
    table, doubted = Table(OWN), []
    for number in range(2000):
        doubtful = table.add(contact(number))
        if doubtful is not None:
            table.add(doubtful)
            doubted.append(doubtful)
    in_one_bucket = [each for each in doubted if table._bucket(each) is table._bucket(doubted[0])]
    assert len(set(in_one_bucket)) == BUCKET


def test_an_answer_makes_up_for_a_failure() -> None:
    table = Table(OWN)
    table.add(contact(1))
    table.failed(contact(1))
    assert table.nearest(bytes(20), 8) == []
    table.add(contact(1))
    table.failed(contact(1))
    assert contact(1) in table
    table.failed(contact(2))


def test_a_contact_that_moved_is_known_by_its_new_address() -> None:
    table = Table(OWN)
    table.add(contact(1))
    # Somebody may just pass its datagrams on: where it was it has to fail first.
    assert table.add(contact(1, "10.0.0.2")) == contact(1)
    assert contact(1) in table
    table.failed(contact(1))
    assert table.add(contact(1, "10.0.0.2")) is None
    assert [each.host for each in table.contacts()] == ["10.0.0.2"]
    assert contact(1) not in table


def test_it_does_not_list_itself() -> None:
    table = Table(OWN)
    table.add(Contact(OWN, "10.0.0.1", 7))
    assert len(table) == 0
    assert not table.has_room(Contact(OWN, "10.0.0.1", 7))


def test_one_network_cannot_fill_a_bucket() -> None:
    table = Table(OWN)
    for number in range(500):
        table.add(contact(number, f"8.8.8.{number % 250 + 1}"))
    assert 0 < len(table) <= PER_NETWORK * len(table.buckets())
    for number in range(500, 1000):
        table.add(contact(number, f"8.{number & 255}.{number >> 8}.1"))
    assert len(table) > BUCKET * PER_NETWORK


def test_nor_can_it_when_others_leave() -> None:
    table = Table(OWN)
    others = [contact(number, f"9.{number & 255}.{number >> 8}.1") for number in range(500)]
    for each in others:
        table.add(each)
    for number in range(500, 1500):
        table.add(contact(number, f"8.8.8.{number % 250 + 1}"))
    for each in others:
        table.failed(each)
        table.failed(each)
    # Buckets that split now take those along that wait.
    for number in range(1500, 2500):
        table.add(contact(number, f"8.8.8.{number % 250 + 1}"))
    crowd = [each for each in table.contacts() if each.host.startswith("8.8.8.")]
    in_buckets = Counter(id(table._bucket(each)) for each in crowd)
    assert in_buckets
    assert max(in_buckets.values()) <= PER_NETWORK
