"""Seed lists from a real web server on loopback, over TLS too, and from disk."""

import datetime
import gzip
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from intelnav.config import SeedConfig
from intelnav.domain.advert import Address
from intelnav.domain.errors import PeerError
from intelnav.domain.identity import Identity
from intelnav.net import seeds as seeds_module
from intelnav.net.seeds import FRESH_SECONDS, SeedLists, fetch
from intelnav.wire.seeds import MAX_BYTES, sign_seeds
from tests.waiting import eventually
from tests.web import Web, web

pytestmark = pytest.mark.anyio

SIGNER = Identity(b"\x31" * 32)
DAY = 86_400
START = 1_800_000_000


def signed(*ports: int, issued: int = START, days: int = 90, by: Identity = SIGNER) -> bytes:
    addresses = tuple(Address("192.0.2.9", port) for port in ports)
    return sign_seeds(by, addresses, issued=issued, expires=issued + days * DAY)


@pytest.fixture
def served() -> Iterator[Web]:
    with web() as served:
        yield served


@dataclass
class Node:
    """What a node has of seed lists, over one data folder; `found` holds what it was told."""

    folder: Path
    url: str
    now: float = START
    found: list[list[int]] = field(default_factory=list)
    lists: SeedLists = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        source = SeedConfig.model_validate({"url": self.url, "key": str(SIGNER.peer)})
        self.lists = SeedLists([source], self.folder, self._tell, lambda: self.now)
        self.found.clear()
        self.lists.load()

    def _tell(self, addresses: tuple[Address, ...]) -> None:
        self.found.append([address.port for address in addresses])

    @property
    def status(self) -> dict[str, Any]:
        return self.lists.status()[0]

    @property
    def files(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.exists() else []


@pytest.fixture
def node(tmp_path: Path, served: Web) -> Node:
    return Node(tmp_path / "seeds", served.url)


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.lists.run)
        yield
        tasks.cancel_scope.cancel()


async def failure(node: Node) -> str:
    """Why what is served is not used."""
    async with running(node):
        await eventually(lambda: node.status["reason"] != "")
    return str(node.status["reason"])


async def use(node: Node, served: Web, content: bytes) -> None:
    """Have the node fetch and use `content`."""
    served.content = content
    before = len(node.found)
    async with running(node):
        await eventually(lambda: len(node.found) > before)


async def test_a_list_is_fetched_told_and_kept(node: Node, served: Web) -> None:
    assert (node.status["state"], node.found) == ("none", [])
    await use(node, served, signed(1, 2))
    assert node.found == [[1, 2]]
    assert node.status == {
        "url": served.url,
        "key": str(SIGNER.peer),
        "state": "fresh",
        "addresses": 2,
        "issued": START,
        "expires": START + 90 * DAY,
        "reason": "",
    }
    (kept,) = node.files
    assert kept.read_bytes() == served.content


async def test_a_week_passes_before_the_next_fetch_also_over_a_restart(node: Node, served: Web) -> None:
    await use(node, served, signed(1))
    node.now += FRESH_SECONDS - 1
    node.restart()
    assert (node.found, node.status["state"]) == ([[1]], "fresh")
    assert node.lists._kept[0].fresh_for(node.now) == 1
    node.now += 1
    assert node.status["state"] == "stale"
    await use(node, served, signed(2, issued=START + 1))
    assert node.found == [[1], [2]]
    assert served.asked == 2
    assert node.status["state"] == "fresh"


async def test_a_fresh_list_is_not_fetched(node: Node, served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    await use(node, served, signed(1))
    node.restart()
    slept = anyio.Event()

    async def sleep(seconds: float) -> None:
        assert seconds > 0
        slept.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(anyio, "sleep", sleep)
    with anyio.fail_after(20):
        async with running(node):
            await slept.wait()
    assert served.asked == 1


async def test_an_old_list_beats_none_even_when_it_is_over(
    node: Node, served: Web, caplog: pytest.LogCaptureFixture
) -> None:
    await use(node, served, signed(1, days=8))
    node.now += 30 * DAY
    served.status = 503
    node.restart()
    assert await failure(node) == "the server answered with HTTP 503"
    assert (node.found, node.status["state"], node.status["addresses"]) == ([[1]], "expired", 1)
    assert "HTTP 503" in caplog.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (signed(9, by=Identity(b"\x32" * 32)), "is wanted"),
        (signed(9)[:-1] + b"\0", "the signature of the seed list is not right"),
        (signed(9, issued=START - 100 * DAY), "has expired"),
        (signed(9, issued=START - 1), "older than the one that is known"),
        (bytes(MAX_BYTES + 1), "at most 16384 bytes"),
        (b"<html>", "this is no seed list"),
    ],
    ids=["other key", "bad signature", "expired", "older", "oversized", "rubbish"],
)
async def test_a_list_that_is_not_right_is_refused_and_said_and_the_old_one_stays(
    node: Node, served: Web, caplog: pytest.LogCaptureFixture, content: bytes, reason: str
) -> None:
    await use(node, served, signed(1))
    node.now += FRESH_SECONDS
    served.content = content
    assert reason in await failure(node)
    assert reason in caplog.text
    assert node.found == [[1]]
    assert (node.status["state"], node.status["addresses"]) == ("stale", 1)
    node.restart()
    assert node.found == [[1]]


async def test_a_failure_is_tried_again_and_forgotten_by_a_success(
    node: Node, served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds_module, "RETRY_SECONDS", 0.01)
    served.content = b""
    async with running(node):
        await eventually(lambda: node.status["reason"] != "")
        served.content = signed(1)
        await eventually(lambda: bool(node.found))
    assert (node.found, node.status["reason"]) == ([[1]], "")


@pytest.mark.parametrize("damage", ["cut", "foreign", "large"])
async def test_what_was_damaged_on_disk_is_not_used_and_fetched_anew(
    node: Node, served: Web, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    await use(node, served, signed(1))
    (kept,) = node.files
    foreign = signed(6, by=Identity(b"\x32" * 32))
    kept.write_bytes({"cut": kept.read_bytes()[:-1], "foreign": foreign, "large": bytes(10**6)}[damage])
    node.restart()
    assert (node.found, node.status["state"]) == ([], "none")
    assert str(kept) in caplog.text
    await use(node, served, signed(1))
    assert node.found == [[1]]
    assert node.files == [kept]


async def test_a_list_that_cannot_be_kept_is_used_all_the_same(node: Node, served: Web) -> None:
    node.folder.write_text("a file where the folder should be")
    served.content = signed(1)
    async with running(node):
        await eventually(lambda: bool(node.found))
        await eventually(lambda: node.status["reason"] != "")
    assert (node.found, node.status["state"]) == ([[1]], "fresh")


async def test_a_clock_that_was_set_back_makes_a_list_stale_not_fresh_for_ever(
    node: Node, served: Web
) -> None:
    await use(node, served, signed(1))
    node.now -= 10
    assert node.status["state"] == "stale"


async def test_several_lists_are_joined_in_order(tmp_path: Path, served: Web) -> None:
    found: list[tuple[Address, ...]] = []
    with web() as other:
        served.content, other.content = signed(1, 2), signed(2, 3)
        sources = [
            SeedConfig.model_validate({"url": each.url, "key": str(SIGNER.peer)}) for each in (served, other)
        ]
        lists = SeedLists(sources, tmp_path, found.append, lambda: START)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lists.run)
            await eventually(lambda: len(found) == 2)
            tasks.cancel_scope.cancel()
    assert [address.port for address in found[-1]] == [1, 2, 3]


async def test_nothing_is_unpacked(served: Web) -> None:
    served.content = gzip.compress(bytes(2**20))
    served.headers = {"Content-Encoding": "gzip"}
    assert await fetch(served.url) == served.content


async def test_a_redirect_is_not_followed(served: Web) -> None:
    served.status, served.headers = 302, {"Location": "http://192.0.2.1/"}
    with pytest.raises(PeerError, match="HTTP 302"):
        await fetch(served.url)


async def test_a_server_that_does_not_go_on_costs_a_bounded_time(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds_module, "FETCH_SECONDS", 0.3)
    served.hold.clear()
    with anyio.fail_after(20):
        with pytest.raises(PeerError, match="not there within"):
            await fetch(served.url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/", "https://127.0.0.1:9/", "https://[::1", "https://\udcff/"]
)
async def test_an_address_without_a_server_is_a_peer_error(url: str) -> None:
    with pytest.raises(PeerError, match="cannot be fetched"):
        await fetch(url)


async def test_tls_is_used_and_the_certificate_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with web(context) as served:
        served.content = signed(1)
        with pytest.raises(PeerError, match="certificate"):
            await fetch(served.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await fetch(served.url) == served.content


def _certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1, with its key, that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(built.public_bytes(Encoding.PEM) + private)
    return path
