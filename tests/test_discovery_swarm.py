"""Nodes that know one bootstrap address and nothing else: who serves what is found in the DHT."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from intelnav.cli.swarm_nodes import free_ports
from intelnav.store.embedded import embedded_model
from tests.daemons import Daemon, daemons
from tests.reference import PlainLlama
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

PROMPT = "Once upon a time, in a village by the sea, there lived"
RANGES = ("0..8", "8..15", "15..22", "22..30")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """A relay that is the bootstrap, three hosts, and an entry that serves no peer."""
    with ExitStack() as stack:
        made = stack.enter_context(daemons(tmp_path_factory.mktemp("swarm"), "relay", "a", "b", "c", "entry"))
        ports = free_ports(8)
        listens = [f"127.0.0.1:{port}" for port in ports]
        made[0].configure(role="relay", network={"listen": listens[0]}, store={"chunks": "none"})
        for daemon, layers, at, chunks in zip(made[1:4], RANGES[1:], listens[1:4], listens[4:7], strict=True):
            daemon.configure(
                slices=[{"model": "smollm2-135m-instruct-q4_1", "layers": layers}],
                network={"listen": at, "bootstrap": [listens[0]]},
                store={"chunks": chunks},
            )
        made[4].configure(
            entry=[{"model": "smollm2-135m-instruct-q4_1", "layers": RANGES[0], "name": "smollm2"}],
            network={"listen": "none", "bootstrap": [listens[0]], "dtype": "f32"},
        )
        for daemon in made:
            daemon.start()
        for daemon in made:
            daemon.until_ready()
        yield made


def test_a_chain_forms_by_itself(nodes: list[Daemon]) -> None:
    entry = nodes[-1]
    until(lambda: (entry.get("/route/smollm2") or {"problem": "-"})["problem"] == "")
    answer = entry.ask(PROMPT, "smollm2", 48)
    assert [hop["layers"] for hop in answer["intelnav"]["chain"]] == list(RANGES)
    peers = [hop["peer"] for hop in answer["intelnav"]["chain"]]
    assert peers == [entry.peer, *(node.peer for node in nodes[1:4])]
    assert answer["intelnav"]["tokens"] == PlainLlama(embedded_model(), 512).greedy(PROMPT, 48)


def test_the_swarm_is_known_by_its_hosts_models_and_gaps(nodes: list[Daemon]) -> None:
    entry, cid = nodes[-1], nodes[1].status()["slices"][0]["cid"]
    until(lambda: bool((entry.get("/swarm/models") or {"models": []})["models"]))
    (model,) = entry.get("/swarm/models")["models"]  # type: ignore[index]
    assert (model["cid"], model["blocks"], model["hosts"]) == (cid, 30, 3)
    # The front runs at the entry, for its owner alone.
    assert model["missing"] == ["0..8"]
    found = entry.get("/peers")
    assert found is not None
    assert [relay["peer"] for relay in found["relays"]] == [nodes[0].peer]
    assert {contact["peer"] for contact in found["contacts"]} == {node.peer for node in nodes[:4]}


def test_a_host_that_leaves_is_gone_from_the_dht_and_one_that_comes_back_is_found(
    nodes: list[Daemon],
) -> None:
    entry, last = nodes[-1], nodes[3]

    def missing() -> list[str]:
        return list((entry.get("/route/smollm2") or {})["missing"])

    until(lambda: missing() == [])
    assert last.stop() == 0
    until(lambda: missing() == [RANGES[3]], 10)
    last.start()
    last.until_ready()
    until(lambda: missing() == [], 20)
    assert len(entry.ask(PROMPT, "smollm2", 4)["intelnav"]["tokens"]) == 4


def test_nodes_that_met_before_find_each_other_while_every_bootstrap_is_down(nodes: list[Daemon]) -> None:
    relay, others = nodes[0], nodes[1:]
    # Contacts are kept when a node stops.
    for daemon in others:
        daemon.stop()
    relay.kill()
    for daemon in others:
        daemon.start()
    for daemon in others:
        daemon.until_ready()
    until(lambda: (others[-1].get("/route/smollm2") or {"problem": "-"})["problem"] == "")
    answer = others[-1].ask(PROMPT, "smollm2", 4)
    assert [hop["layers"] for hop in answer["intelnav"]["chain"]] == list(RANGES)
