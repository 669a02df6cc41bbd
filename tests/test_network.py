from intelnav.domain.advert import Address
from intelnav.network import outside

SEEN = Address("198.51.100.7", 40_001)


def test_what_listens_on_one_address_is_reached_there() -> None:
    assert outside("192.0.2.7", 7718, SEEN) == (Address("192.0.2.7", 7718),)
    assert outside("node.example", 7718, None) == (Address("node.example", 7718),)


def test_what_listens_on_every_address_is_reached_where_others_see_this_node() -> None:
    for host in ("0.0.0.0", "::"):
        assert outside(host, 7718, SEEN) == (Address("198.51.100.7", 7718),)
        assert outside(host, 7718, None) == ()
