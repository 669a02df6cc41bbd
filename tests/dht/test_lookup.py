import random
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.candidates import PER_HOST, PER_NETWORK
from intelnav.dht.contacts import Contact, nearest
from intelnav.dht.datagrams import Answer
from intelnav.dht.lookup import Ask, Holder, Lookup, LookupLimits
from intelnav.dht.records import Offer
from tests.dht.network import Network
from tests.dht.records import KEY, NOW, peer, record

YOU = ("192.0.2.1", 1)
TARGETS = [sha256(bytes([n])).digest()[:20] for n in range(10)]


@pytest.mark.parametrize("target", TARGETS)
def test_it_ends_at_the_nearest(target: bytes) -> None:
    network = Network(200)
    lookup, seconds = network.lookup(network.members[0], target, records=False)
    expected = [member.contact for member in network.nearest(target, 9)]
    expected = [each for each in expected if each != network.members[0].contact][:8]
    assert [holder.contact for holder in lookup.holders()] == expected
    assert all(holder.token is not None for holder in lookup.holders())
    assert seconds < 0.4


@pytest.mark.parametrize("target", TARGETS)
def test_dead_nodes_cost_their_time_outs_and_nothing_else(target: bytes) -> None:
    network = Network(200)
    network.kill(0.3)
    asker = network.nearest(bytes(20), 1)[0]
    lookup, seconds = network.lookup(asker, target, records=False)
    # Nobody has noticed yet, so others name the dead as well; the last of the eight may not come up between them.
    expected = [member.contact for member in network.nearest(target, 9) if member is not asker][:6]
    assert [holder.contact for holder in lookup.holders()][:6] == expected
    assert seconds < 2.0
    assert lookup.requests <= 40


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize("count", [1, 5, 20, 64])
def test_every_record_is_found(count: int, loss: float) -> None:
    network = Network(100, loss=loss)
    for number in range(1, count + 1):
        made = record(number)
        for member in network.nearest(KEY, 8):
            member.storage.add(made, f"192.0.{number}.7", NOW)
    lookup, seconds = network.lookup(network.members[0], KEY)
    assert {each.seq for each in lookup.records.values()} == {1}
    assert set(lookup.records) == {peer(number).peer for number in range(1, count + 1)}
    assert lookup.requests <= 60
    assert seconds < 3.0


def test_holders_that_differ_are_read_in_full_and_the_newest_wins() -> None:
    network = Network(50)
    holders = network.nearest(KEY, 8)
    for number in range(1, 13):
        for index, member in enumerate(holders):
            if (index + number) % 4:
                member.storage.add(record(number), f"192.0.{number}.7", NOW)
    holders[3].storage.add(record(1, seq=9, offer=Offer()), "192.0.2.7", NOW)
    lookup, _ = network.lookup(network.members[0], KEY)
    assert set(lookup.records) == {peer(number).peer for number in range(1, 13)}
    assert lookup.records[peer(1).peer].offer.withdraws


def test_a_slow_network_is_not_taken_for_a_dead_one() -> None:
    network = Network(30, delay=0.4)
    asker = network.members[0]
    asker.table = asker.table[:1]
    lookup, seconds = network.lookup(asker, KEY, records=False)
    assert lookup.holders()
    assert seconds < 5.0


def test_patience_follows_how_fast_others_answer() -> None:
    contacts = [Contact(bytes([n]) * 32, f"10.0.0.{n}", 1) for n in range(1, 17)]
    far_to_near = nearest(contacts, KEY, 16)[::-1]
    lookup = Lookup(KEY, far_to_near[:1], 0.0, own=b"o" * 32, limits=LookupLimits(parallel=1))
    now, waits = 0.0, []
    for took, nearer in zip((0.01, 0.12, 0.05, 0.3), far_to_near[1:], strict=False):
        [ask] = lookup.asks(now)
        waits.append(round((lookup.wake_at() or 0.0) - now, 3))
        now += took
        lookup.answered(ask.number, ask.contact, Answer(YOU, contacts=(nearer,)), now)
    lookup.asks(now)
    waits.append(round((lookup.wake_at() or 0.0) - now, 3))
    assert waits == [0.4, 0.15, 0.24, 0.24, 0.4]


def test_few_are_asked_at_once_until_the_nearest_has_answered() -> None:
    limits = LookupLimits()
    contacts = nearest([Contact(bytes([n]) * 32, f"10.0.0.{n}", 1) for n in range(1, 31)], KEY, 30)
    lookup = Lookup(KEY, contacts[1:], 0.0, own=b"o" * 32, limits=limits)
    asks = lookup.asks(0.0)
    assert [ask.contact for ask in asks] == contacts[1 : 1 + limits.parallel]
    lookup.answered(asks[0].number, asks[0].contact, Answer(YOU, contacts=(contacts[0],)), 0.1)
    [ask] = lookup.asks(0.1)
    assert ask.contact == contacts[0]
    lookup.answered(ask.number, ask.contact, Answer(YOU), 0.2)
    assert [ask.contact for ask in lookup.asks(0.2)] == contacts[1 + limits.parallel : limits.wanted]


def test_nobody_to_ask_ends_at_once() -> None:
    lookup = Lookup(KEY, [], 0.0, own=b"o" * 32)
    assert lookup.asks(0.0) == []
    assert lookup.finished
    assert lookup.wake_at() is None
    assert lookup.holders() == []


@pytest.mark.parametrize("part", [0.3, 1.0])
@pytest.mark.parametrize("kind", ["fakes", "rubbish", "silence", "endless pages"])
def test_hostile_nodes_cost_their_bound_at_most(kind: str, part: float) -> None:
    network = Network(200)
    chance = random.Random(7)

    def fakes(ask: Ask) -> Answer:
        contacts = [Contact(chance.randbytes(32), f"10.9.{chance.randrange(256)}.9", 9) for _ in range(28)]
        return Answer(YOU, bytes(8), tuple(contacts))

    def rubbish(ask: Ask) -> Answer:
        shown = (chance.randbytes(300), b"", record(key=bytes(20)).data)
        return Answer(YOU, None, (), shown, tuple(chance.randbytes(6) for _ in range(64)))

    def endless(ask: Ask) -> Answer:
        shown = record(chance.randrange(1, 500)).data
        more = tuple(chance.randbytes(6) for _ in range(64))
        return Answer(YOU, None, (), (shown,), more)

    answers = {"fakes": fakes, "rubbish": rubbish, "silence": lambda _: None, "endless pages": endless}
    honest = network.members[0]
    for member in chance.sample(network.members[1:], int(part * 199)):
        member.hostile = answers[kind]
    network.store(record())
    lookup, seconds = network.lookup(honest, KEY)
    assert lookup.requests <= 60
    assert seconds <= 5.0
    if part < 1:
        assert peer(1).peer in lookup.records


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["holders elsewhere", "others in the holders' place", "both"])
def test_liars_near_a_key_do_not_hide_who_has_its_records(kind: str, target: bytes) -> None:
    network = Network(200)
    chance = random.Random(9)
    made = record(key=target)
    network.store(made)
    real = [member.contact for member in network.nearest(target, 30)]

    def lie(_: Ask) -> Answer:
        elsewhere = [Contact(each.key, f"10.9.{chance.randrange(256)}.9", 9) for each in real[:8]]
        # Keys of nobody's that are nearer than everybody else.
        nearer = nearest((Contact(chance.randbytes(32), *real[0].address) for _ in range(2000)), target, 8)
        instead = [Contact(each.key, *there.address) for each, there in zip(nearer, real[:8], strict=True)]
        told = {"holders elsewhere": elsewhere, "others in the holders' place": instead, "both": elsewhere}
        return Answer(YOU, bytes(8), (*told[kind], *(instead if kind == "both" else ()), *honest))

    # Every second one around the holders lies, and so does every fourth on the way; one of them is met first of all.
    asker = next(each for each in network.members if each.contact not in real)
    for member in network.members:
        near = member.contact in real[8::2]
        if member is not asker and member.contact not in real[:8] and (near or chance.random() < 0.25):
            member.hostile = lie
    honest = [each.contact for each in network.members if each is not asker and each.hostile is None][:4]
    asker.table = [real[8]]
    lookup, seconds = network.lookup(asker, target)
    assert peer(1).peer in lookup.records
    assert lookup.requests <= 60
    assert seconds <= 5.0


def test_a_late_answer_from_one_address_makes_another_needless() -> None:
    starts, key = [Contact(bytes([n]) * 32, f"10.0.1.{n}", 1) for n in (1, 2)], b"k" * 32
    lookup = Lookup(KEY, starts, 0.0, own=b"o" * 32)
    named = tuple(Contact(key, f"10.0.0.{n}", 1) for n in (2, 3))
    for ask, each in zip(lookup.asks(0.0), named, strict=True):
        lookup.answered(ask.number, ask.contact, Answer(YOU, contacts=(each,)), 0.1)
    [first] = lookup.asks(0.1)
    assert lookup.asks(0.2) == []
    [second] = lookup.asks(0.4)
    assert {first.contact, second.contact} == set(named)
    lookup.answered(first.number, first.contact, Answer(YOU, b"12345678"), 0.5)
    lookup.failed(second.number)
    assert lookup.asks(0.5) == []
    assert lookup.finished
    assert Holder(first.contact, b"12345678") in lookup.holders()


def test_who_answers_in_anothers_place_is_asked_himself() -> None:
    there = Contact(b"t" * 32, "10.0.0.1", 1)
    lookup = Lookup(KEY, [Contact(b"k" * 32, *there.address)], 0.0, own=b"o" * 32)
    [ask] = lookup.asks(0.0)
    lookup.answered(ask.number, there, Answer(YOU, b"12345678"), 0.1)
    [again] = lookup.asks(0.1)
    assert again.contact == there
    lookup.answered(again.number, there, Answer(YOU, b"abcdefgh"), 0.2)
    assert lookup.asks(0.2) == []
    assert lookup.holders() == [Holder(there, b"abcdefgh")]


@pytest.mark.parametrize(
    ("hosts", "most"), [(["8.8.8.8"], PER_HOST), ([f"8.8.8.{n}" for n in range(1, 5)], PER_NETWORK)]
)
def test_one_host_or_network_is_not_all_that_a_lookup_finds(hosts: list[str], most: int) -> None:
    chance = random.Random(3)
    crowd = nearest((Contact(chance.randbytes(32), chance.choice(hosts), n + 1) for n in range(500)), KEY, 40)
    others = [Contact(chance.randbytes(32), f"9.{n}.1.1", 1) for n in range(10)]
    lookup = Lookup(KEY, crowd + others, 0.0, own=b"o" * 32)
    now = 0.0
    while asks := lookup.asks(now):
        now += 0.01
        for ask in asks:
            lookup.answered(ask.number, ask.contact, Answer(YOU, bytes(8)), now)
    found = [holder.contact for holder in lookup.holders()]
    assert len(found) == LookupLimits().wanted
    assert sum(contact in crowd for contact in found) == most


def test_a_victim_is_asked_no_more_often_than_hosts_name_it() -> None:
    liars = [Contact(bytes([n]) * 32, f"9.{n}.1.1", 1) for n in range(1, 5)]
    chance = random.Random(4)
    lookup = Lookup(KEY, liars, 0.0, own=b"o" * 32)
    victim: list[Ask] = []
    now = 0.0
    while not lookup.finished:
        for ask in lookup.asks(now):
            if ask.contact in liars:
                fakes = [
                    Contact(chance.randbytes(32), "8.8.8.8", chance.randrange(1, 65536)) for _ in range(12)
                ]
                lookup.answered(ask.number, ask.contact, Answer(YOU, contacts=tuple(fakes)), now)
            else:
                victim.append(ask)
        now = lookup.wake_at() or now
    assert len(victim) <= PER_HOST * len(liars)


def test_of_several_addresses_the_one_that_most_hosts_name_comes_first() -> None:
    tellers = [Contact(bytes([n]) * 32, f"9.{n}.1.1", 1) for n in range(1, 4)]
    # Two nodes on one host have one voice.
    tellers += [Contact(bytes([n]) * 32, "9.9.1.1", n) for n in (8, 9)]
    wrong, right = Contact(b"k" * 32, "8.1.1.1", 1), Contact(b"k" * 32, "8.2.1.1", 1)
    told = dict(zip(tellers, (right, right, wrong, wrong, wrong), strict=True))
    lookup = Lookup(KEY, tellers, 0.0, own=b"o" * 32, limits=LookupLimits(parallel=5))
    for ask in lookup.asks(0.0)[::-1]:
        lookup.answered(ask.number, ask.contact, Answer(YOU, contacts=(told[ask.contact],)), 0.1)
    assert [ask.contact for ask in lookup.asks(0.1)] == [right]


def test_what_liars_name_in_vain_is_not_held_against_others() -> None:
    liars = [Contact(bytes([n]) * 32, f"9.{n}.1.1", 1) for n in range(1, 5)]
    honest = Contact(b"h" * 32, "9.50.1.1", 1)
    holders = nearest([Contact(bytes([n]) * 32, f"8.{n}.1.1", 1) for n in range(1, 40)], KEY, 7)
    chance = random.Random(5)
    lookup = Lookup(KEY, [*liars, honest], 0.0, own=b"o" * 32)
    now, heard = 0.0, set()
    while not lookup.finished:
        for ask in lookup.asks(now):
            if ask.contact in liars:
                # Made-up keys on the holders' hosts, and holders at wrong addresses.
                fakes = [Contact(chance.randbytes(32), each.host, 9) for each in holders]
                fakes += [Contact(each.key, f"7.{chance.randrange(256)}.1.1", 9) for each in holders]
                lookup.answered(ask.number, ask.contact, Answer(YOU, bytes(8), tuple(fakes)), now)
            elif ask.contact == honest:
                lookup.answered(ask.number, honest, Answer(YOU, bytes(8), tuple(holders)), now)
            elif ask.contact in holders:
                heard.add(ask.contact)
                lookup.answered(ask.number, ask.contact, Answer(YOU, bytes(8)), now)
        now = lookup.wake_at() or now
    assert heard == set(holders)
    assert lookup.requests <= 60


@pytest.mark.parametrize("kind", ["dead addresses", "others' addresses"])
def test_made_up_nodes_without_end_do_not_hide_who_has_a_keys_records(kind: str) -> None:
    network = Network(600)
    chance = random.Random(12)
    found = requests = 0
    for _ in range(20):
        target = chance.randbytes(20)
        made = [Contact(chance.randbytes(32), f"10.9.{n >> 8}.{n & 255}", 9) for n in range(10_000)]
        # Keys of nobody's, nearer than nearly all that there are: more than a lookup may ask.
        nearer = nearest(made, target, 200)
        if kind == "others' addresses":
            nearer = [Contact(each.key, *chance.choice(network.members).contact.address) for each in nearer]

        def lie(_: Ask, nearer: list[Contact] = nearer) -> Answer:
            return Answer(YOU, bytes(8), tuple(chance.sample(nearer, 28)))

        # Half of all nodes.
        for member in network.members:
            member.hostile = chance.choice((None, lie))
        network.store(record(key=target))
        asker = chance.choice([member for member in network.members if not member.hostile])
        lookup, seconds = network.lookup(asker, target)
        found += peer(1).peer in lookup.records
        requests += lookup.requests
        assert lookup.requests <= 60
        assert seconds <= 5.0
    assert found >= 19
    assert requests <= 20 * 48


@pytest.mark.parametrize(("nodes", "dead"), [(5, 0), (5, 2), (6, 3), (8, 3)])
def test_a_swarm_behind_one_address_finds_its_records(nodes: int, dead: int) -> None:
    network = Network(nodes)
    for number, member in enumerate(network.members):
        member.contact = Contact(member.contact.key, "8.8.8.8", 7000 + number)
    network._at = {member.contact.address: member for member in network.members}
    for member in network.members:
        member.table = [each.contact for each in network.members if each is not member]
    for number in range(1, 6):
        network.store(record(number))
    for member in network.members[1 : dead + 1]:
        member.alive = False
    lookup, _ = network.lookup(network.members[0], KEY)
    assert len(lookup.records) == 5
    assert len(lookup.holders()) == nodes - dead - 1


def test_of_one_answer_only_so_many_contacts_are_taken() -> None:
    start = Contact(b"s" * 32, "10.0.0.1", 1)
    lookup = Lookup(KEY, [start], 0.0, own=b"o" * 32, limits=LookupLimits(wanted=100, parallel=100))
    [ask] = lookup.asks(0.0)
    named = tuple(Contact(bytes([n]) * 32, f"10.0.1.{n}", 1) for n in range(1, 29))
    lookup.answered(ask.number, ask.contact, Answer(YOU, contacts=named), 0.1)
    assert len(lookup.asks(0.1)) == LookupLimits().accepted


def test_one_address_is_not_asked_for_the_sake_of_many_keys() -> None:
    start = Contact(b"s" * 32, "10.0.0.1", 1)
    lookup = Lookup(KEY, [start], 0.0, own=b"o" * 32)
    [ask] = lookup.asks(0.0)
    named = tuple(Contact(bytes([n]) * 32, "10.0.0.99", 53) for n in range(1, 13))
    lookup.answered(ask.number, ask.contact, Answer(YOU, contacts=named), 0.1)
    assert len(lookup.asks(0.1)) == PER_HOST
    # They stay silent, and only one host named them.
    assert lookup.asks(0.9) == []
    assert lookup.finished


def test_a_stranger_cannot_name_addresses_of_this_network() -> None:
    start = Contact(b"s" * 32, "8.8.8.8", 1)
    lookup = Lookup(KEY, [start], 0.0, own=b"o" * 32)
    [ask] = lookup.asks(0.0)
    named = (Contact(b"a" * 32, "127.0.0.1", 53), Contact(b"b" * 32, "192.168.1.1", 53))
    lookup.answered(ask.number, ask.contact, Answer(YOU, contacts=named), 0.1)
    assert lookup.asks(0.1) == []
    assert lookup.finished


def test_who_is_left_alone_is_not_asked() -> None:
    contacts = [Contact(bytes([n]) * 32, f"10.0.0.{n}", 1) for n in range(1, 5)]
    lookup = Lookup(
        KEY, contacts, 0.0, own=contacts[0].key, is_left_alone=lambda contact: contact == contacts[1]
    )
    assert {ask.contact for ask in lookup.asks(0.0)} == set(contacts[2:])


def test_forged_and_foreign_records_are_not_taken() -> None:
    start = Contact(b"s" * 32, "10.0.0.1", 1)
    good, foreign, expired = record(1), record(2, key=bytes(20)), record(3, lives=-1)
    forged = record(4).data.replace(peer(4).peer.key, peer(5).peer.key)
    lookup = Lookup(KEY, [start], 0.0, own=b"o" * 32, seed=bytes(8), unix=NOW)
    [ask] = lookup.asks(0.0)
    assert ask.request.query == "get"
    shown = (forged, foreign.data, expired.data, good.data)
    lookup.answered(ask.number, ask.contact, Answer(YOU, records=shown), 0.0)
    assert lookup.records == {peer(1).peer: good}


def test_an_answer_after_its_time_out_counts_and_a_second_one_does_not() -> None:
    contacts = [Contact(bytes([n]) * 32, f"10.0.0.{n}", 1) for n in (1, 2)]
    lookup = Lookup(KEY, contacts, 0.0, own=b"o" * 32)
    first, second = lookup.asks(0.0)
    lookup.answered(first.number, first.contact, Answer(YOU, b"12345678"), 0.3)
    assert lookup.asks(0.4) == []
    lookup.answered(second.number, second.contact, Answer(YOU, b"abcdefgh"), 0.45)
    lookup.answered(second.number, second.contact, Answer(YOU, b"ijklmnop"), 0.46)
    assert {holder.token for holder in lookup.holders()} == {b"12345678", b"abcdefgh"}


def test_an_answer_after_the_end_changes_nothing() -> None:
    lookup = Lookup(KEY, [Contact(b"a" * 32, "10.0.0.1", 1)], 0.0, own=b"o" * 32)
    [ask] = lookup.asks(0.0)
    lookup.answered(ask.number, ask.contact, Answer(YOU, b"12345678"), 5.0)
    assert lookup.asks(5.0) == []
    assert lookup.finished
    assert lookup.holders() == []


@given(
    st.lists(st.tuples(st.sampled_from(["answer", "silence", "send"]), st.floats(0, 0.5)), max_size=80),
    st.integers(0, 2**32),
)
def test_whatever_comes_it_keeps_its_limits_and_ends(events: list[tuple[str, float]], seed: int) -> None:
    chance = random.Random(seed)
    limits = LookupLimits()

    def some(count: int) -> list[Contact]:
        return [Contact(chance.randbytes(32), f"10.0.{chance.randrange(99)}.1", 1) for _ in range(count)]

    lookup = Lookup(KEY, some(16), 0.0, own=b"o" * 32, seed=bytes(8), unix=NOW)
    now, open_asks, sent = 0.0, [], 0
    for what, gap in events:
        new = lookup.asks(now)
        sent += len(new)
        open_asks += new
        assert len(lookup._waiting) <= limits.wanted
        assert sent == lookup.requests <= limits.requests
        now += gap
        if what == "answer" and open_asks:
            ask = open_asks.pop(chance.randrange(len(open_asks)))
            more = tuple(chance.randbytes(6) for _ in range(chance.randrange(3)))
            records = (record(chance.randrange(1, 4)).data,)
            answer = Answer(YOU, bytes(8), tuple(some(8)), records, more)
            lookup.answered(ask.number, ask.contact, answer, now)
        elif what == "send" and open_asks:
            lookup.failed(open_asks.pop().number)
    steps = 0
    while lookup.asks(now) or not lookup.finished:
        wake = lookup.wake_at()
        assert wake is not None
        now = max(now, wake)
        steps += 1
        assert steps < 200
    assert lookup.asks(5.0) == []
    assert lookup.finished
