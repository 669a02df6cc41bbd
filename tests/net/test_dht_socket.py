import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from intelnav.dht.contacts import Contact
from intelnav.dht.datagrams import Answer, Datagram, Request
from intelnav.domain.advert import Address
from intelnav.domain.identity import Identity
from intelnav.net.dht_socket import DhtSocket

pytestmark = pytest.mark.anyio

Make = Callable[..., DhtSocket]


@pytest.fixture
async def sockets() -> AsyncIterator[Make]:
    made: list[DhtSocket] = []

    def make(reply_seconds: float = 5.0) -> DhtSocket:
        def on_request(datagram: Datagram, sender: tuple[str, int]) -> Answer | None:
            return Answer(sender) if datagram.is_signed() else None

        identity = Identity((len(made) + 1).to_bytes(32, "big"))
        made.append(DhtSocket(identity, on_request, rate=1000, burst=1000, reply_seconds=reply_seconds))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def asked(one: DhtSocket, address: tuple[str, int]) -> tuple[Contact, Answer] | None:
    """What came back, None for silence."""
    outcome: asyncio.Future[tuple[Contact, Answer] | None] = asyncio.get_running_loop().create_future()
    assert one.ask(
        address,
        Request("ping"),
        lambda contact, answer: outcome.set_result((contact, answer)),
        lambda: outcome.set_result(None),
    )
    async with asyncio.timeout(10):
        return await outcome


@pytest.mark.parametrize(
    ("asking", "answering"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1"), ("127.0.0.1", "::")],
)
async def test_an_address_has_one_spelling_on_any_kind_of_socket(
    sockets: Make, asking: str, answering: str
) -> None:
    one, other = sockets(), sockets()
    here = await one.listen(Address(asking, 0))
    there = await other.listen(Address(answering, 0))
    known_as = "::1" if "::1" in (asking, answering) else "127.0.0.1"
    found = await asked(one, (known_as, there.port))
    assert found is not None
    contact, answer = found
    assert contact == Contact(Identity((2).to_bytes(32, "big")).peer.key, known_as, there.port)
    assert answer.you == (known_as, here.port)


async def test_what_the_socket_cannot_reach_is_not_asked(sockets: Make) -> None:
    one = sockets()
    unused = lambda *_: pytest.fail("nothing was asked")  # noqa: E731
    assert not one.ask(("127.0.0.1", 7), Request("ping"), unused, unused)
    await one.listen(Address("127.0.0.1", 0))
    assert not one.ask(("::1", 7), Request("ping"), unused, unused)


async def test_closing_tells_everyone_who_waits(sockets: Make) -> None:
    one = sockets(reply_seconds=60.0)
    await one.listen(Address("127.0.0.1", 0))
    waiting = asyncio.create_task(asked(one, ("127.0.0.1", 9)))
    await asyncio.sleep(0)
    one.close()
    assert await waiting is None
    assert not one.ask(("127.0.0.1", 9), Request("ping"), lambda *_: None, lambda: None)
