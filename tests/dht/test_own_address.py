from intelnav.dht.own_address import MAX_VOTERS, VOTE_SECONDS, OwnAddress

ME, LIE = ("198.51.100.1", 7717), ("198.51.100.66", 1)


def voter(number: int) -> tuple[bytes, str]:
    return bytes([number]) * 32, f"192.0.{number}.7"


def test_three_that_agree_count() -> None:
    own = OwnAddress()
    own.seen_as(LIE, *voter(1), 0.0)
    for number in (2, 3):
        own.seen_as(ME, *voter(number), 0.0)
    assert own.confirmed(0.0) is None
    own.seen_as(ME, *voter(4), 0.0)
    assert own.confirmed(0.0) == ME


def test_in_a_network_of_fewer_all_have_to_agree() -> None:
    own = OwnAddress()
    assert own.confirmed(0.0) is None
    own.seen_as(ME, *voter(1), 0.0)
    assert own.confirmed(0.0) == ME
    own.seen_as(LIE, *voter(2), 0.0)
    assert own.confirmed(0.0) is None


def test_many_keys_on_one_host_have_one_vote() -> None:
    own = OwnAddress()
    for number in (1, 2, 3):
        own.seen_as(ME, *voter(number), 0.0)
    for number in range(100, 200):
        own.seen_as(LIE, bytes([number]) * 32, "203.0.113.5", 0.0)
    assert own.confirmed(0.0) == ME


def test_in_a_loopback_swarm_each_peer_has_its_own() -> None:
    own = OwnAddress()
    here, there = ("127.0.0.1", 1), ("127.0.0.1", 2)
    own.seen_as(there, b"a" * 32, "127.0.0.1", 0.0)
    for key in (b"b", b"c", b"d"):
        own.seen_as(here, key * 32, "127.0.0.1", 0.0)
    assert own.confirmed(0.0) == here


def test_old_votes_lapse_and_voters_are_bounded() -> None:
    own = OwnAddress()
    own.seen_as(ME, *voter(1), 0.0)
    assert own.confirmed(VOTE_SECONDS) is None
    for number in range(1, 100):
        own.seen_as(ME, *voter(number), 0.0)
    assert len(own._votes) == MAX_VOTERS
