from intelnav.dht.contacts import Contact
from intelnav.domain.advert import Address
from intelnav.net.dht_reach import Reach

VOTERS = [Contact(bytes([n]) * 32, f"192.0.{n}.7", 7) for n in range(1, 4)]


def seen(at: tuple[str, int], *, reachable: bool | None = None, bound: Address | None = None) -> Reach:
    reach = Reach(reachable)
    reach.bound = bound or Address("0.0.0.0", 7717)
    for voter in VOTERS:
        reach.seen_as(at, voter)
    return reach


def test_while_nothing_is_known_it_stays_out_of_tables_but_is_no_client() -> None:
    reach = Reach(None)
    assert (reach.seen_at, reach.is_client, reach.stays_out_of_tables) == (None, False, True)


def test_an_address_of_this_machine_with_the_bound_port_is_reachable() -> None:
    reach = seen(("127.0.0.1", 7717))
    assert reach.seen_at == Address("127.0.0.1", 7717)
    assert not reach.is_client
    assert not reach.stays_out_of_tables


def test_a_translated_address_makes_a_client() -> None:
    for address in (("203.0.113.5", 7717), ("127.0.0.1", 40000), ("2001:db8::5", 7717)):
        reach = seen(address)
        assert reach.is_client
        assert reach.stays_out_of_tables


def test_the_owner_knows_better() -> None:
    assert not seen(("203.0.113.5", 7717), reachable=True).stays_out_of_tables
    assert not Reach(True).stays_out_of_tables
    assert seen(("127.0.0.1", 7717), reachable=False).is_client
    assert Reach(False).stays_out_of_tables


def test_it_follows_when_the_address_changes() -> None:
    reach = seen(("203.0.113.5", 7717))
    assert reach.is_client
    for voter in VOTERS:
        reach.seen_as(("127.0.0.1", 7717), voter)
    assert not reach.is_client
