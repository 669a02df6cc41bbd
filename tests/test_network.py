from pathlib import Path

import pytest

from intelnav.config import NodeConfig
from intelnav.domain.advert import Address
from intelnav.domain.identity import Identity
from intelnav.network import Network, outside
from intelnav.wanted import ConfiguredPeers

SEEN = Address("198.51.100.7", 40_001)


def test_what_listens_on_one_address_is_reached_there() -> None:
    assert outside("192.0.2.7", 7718, SEEN) == (Address("192.0.2.7", 7718),)
    assert outside("node.example", 7718, None) == (Address("node.example", 7718),)


def test_what_listens_on_every_address_is_reached_where_others_see_this_node() -> None:
    for host in ("0.0.0.0", "::"):
        assert outside(host, 7718, SEEN) == (Address("198.51.100.7", 7718),)
        assert outside(host, 7718, None) == ()


@pytest.mark.anyio
async def test_a_relay_that_loses_its_address_is_no_relay_until_it_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = NodeConfig(role="relay", data_dir=tmp_path)
    network = Network(config, Identity(b"1" * 32), ConfiguredPeers(config), lambda: ())
    await network.open(Address("127.0.0.1", 0), None)
    try:
        known = Address("192.0.2.7", 7717)
        for seen_at in (known, None, known):
            at = () if seen_at is None else (seen_at,)
            monkeypatch.setattr(Network, "addresses", at)
            await network._say()
            assert len(await network.discovery.relays()) == len(at)
    finally:
        network.dht.close()
