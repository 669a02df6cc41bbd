import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.contacts import (
    Contact,
    is_credible,
    nearest,
    network_of,
    owner_of,
    pack,
    pack_address,
    unpack,
    unpack_address,
)
from intelnav.dht.keys import distance, node_id

keys = st.binary(min_size=32, max_size=32)


@given(keys, st.ip_addresses(), st.integers(1, 65535))
def test_a_contact_survives_or_is_no_contact(key: bytes, ip: object, port: int) -> None:
    contact = Contact(key, str(ip), port)
    try:
        read = unpack(pack(contact))
    except ValueError:
        return
    assert read == contact
    assert read.id == node_id(key)


@given(st.binary(max_size=60))
def test_reading_raises_only_value_errors(data: bytes) -> None:
    try:
        contact = unpack(data)
    except ValueError:
        return
    assert pack(contact) == data


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "::ffff:192.0.2.7"],
)
def test_what_is_nobodys_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="cannot be a node's address"):
        unpack_address(pack_address(address, 7))
    with pytest.raises(ValueError, match="cannot be a node's address"):
        unpack_address(pack_address("192.0.2.7", 0))


@given(st.lists(keys, unique=True, max_size=40), st.binary(min_size=20, max_size=20), st.integers(1, 12))
def test_nearest_is_nearest_by_xor(given_keys: list[bytes], target: bytes, count: int) -> None:
    contacts = [Contact(key, "192.0.2.7", 7) for key in given_keys]
    expected = sorted(contacts, key=lambda contact: distance(contact.id, target))[:count]
    assert nearest(contacts, target, count) == expected


def test_nobody_names_addresses_of_a_closer_sphere_than_his_own() -> None:
    public, private, loopback = "8.8.8.8", "10.0.0.1", "127.0.0.1"
    for far, near in ((public, private), (public, loopback), (private, loopback)):
        assert is_credible(far, near)
        assert is_credible(near, near)
        assert not is_credible(near, far)


def test_who_counts_together() -> None:
    assert network_of("192.0.2.7") == network_of("192.0.2.200") != network_of("192.0.3.7")
    assert owner_of("192.0.2.7") != owner_of("192.0.2.8")
    assert owner_of("2001:db8::1") == owner_of("2001:db8::2:1") != owner_of("2001:db8:0:1::1")
    assert network_of("2001:db8::1") == network_of("2001:db8:0:1::1") != network_of("2001:db8:1::1")
