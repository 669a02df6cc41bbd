"""Slices and nodes that are given up while answers run: those end as they should, and new ones go elsewhere."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from intelnav.cli.swarm_nodes import free_ports
from intelnav.store.embedded import embedded_model
from tests.daemons import Daemon, Json, daemons
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

MODEL = "smollm2-135m-instruct-q4_1"
PROMPT = "Once upon a time, in a village by the sea, there lived"
LAYERS = "8..30"
# An answer of so many tokens takes some seconds, and less than what a node has that stops.
TOKENS = 120


@pytest.fixture
def swarm(tmp_path: Any) -> Iterator[list[Daemon]]:
    """Two hosts of the same layers, and an entry that has those before."""
    with daemons(tmp_path, "a", "b", "entry") as made:
        ports = free_ports(2)
        for daemon, port in zip(made, ports, strict=False):
            daemon.configure(
                slices=[{"model": MODEL, "layers": LAYERS}],
                network={"listen": f"127.0.0.1:{port}", "bootstrap": [f"127.0.0.1:{each}" for each in ports]},
                store={"chunks": "none"},
            )
        made[2].configure(
            entry=[{"model": MODEL, "layers": "0..8", "name": "smollm2"}],
            network={"listen": "none", "bootstrap": [f"127.0.0.1:{ports[0]}"]},
        )
        for daemon in made:
            daemon.start()
        for daemon in made:
            daemon.until_ready()
        until(lambda: hosts(made[2]) == {made[0].peer, made[1].peer})
        yield made


def hosts(entry: Daemon) -> set[str]:
    """Who could serve an answer of the entry, as far as that knows."""
    plan = entry.get("/route/smollm2?count=4") or {"routes": []}
    found = set()
    for route in plan["routes"]:
        for hop in route["hops"]:
            found |= {hop["peer"], *(each["peer"] for each in hop["alternates"])}
    return found


class Answer(threading.Thread):
    """An answer that is streamed; `events` are what came so far."""

    def __init__(self, entry: Daemon, tokens: int = TOKENS, model: str = "smollm2") -> None:
        super().__init__(daemon=True)
        self.entry = entry
        self.model = model
        self.tokens = tokens
        self.events: list[str] = []
        self.start()

    def run(self) -> None:
        body = {
            "model": self.model,
            "prompt": PROMPT,
            "temperature": 0,
            "max_tokens": self.tokens,
            "stream": True,
            "intelnav": True,
        }
        with self.entry.client() as client, client.stream("POST", "/v1/completions", json=body) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    self.events.append(line.removeprefix("data: "))

    def under_way(self) -> "Answer":
        until(lambda: len(self.events) > 2)
        assert self.is_alive()
        return self

    def end(self) -> Json:
        """The last event that is not the mark of the end."""
        self.join(60)
        assert not self.is_alive()
        whole = [event for event in self.events if event != "[DONE]"]
        last: Json = json.loads(whole[-1])
        return last

    def whole(self) -> list[int]:
        """The tokens of an answer that must have come to its end."""
        last = self.end()
        assert self.events[-1] == "[DONE]", self.events[-1]
        tokens: list[int] = last["intelnav"]["tokens"]
        assert len(tokens) == self.tokens
        return tokens


def serving(swarm: list[Daemon]) -> tuple[Daemon, Daemon]:
    """The host that an answer runs through, and the other one."""
    a, b = swarm[:2]
    busy = [daemon for daemon in (a, b) if daemon.status()["sessions"]]
    assert len(busy) == 1
    return (a, b) if busy[0] is a else (b, a)


def give_up(daemon: Daemon, grace: float = 300.0) -> None:
    """Take the slice out of the host's file."""
    config = yaml.safe_load((daemon.folder / "node.yaml").read_text())
    daemon.configure(**config | {"slices": [], "limits": {"grace_seconds": grace}})


def test_a_slice_is_given_up_under_load_and_no_answer_is_hurt(swarm: list[Daemon]) -> None:
    entry = swarm[2]
    expected = Answer(entry).whole()
    running = Answer(entry, 3 * TOKENS).under_way()
    leaving, staying = serving(swarm)
    hosting = leaving.get("/hosting")
    assert hosting is not None
    ((chain,),) = [each["chains"] for each in hosting["hosting"]]
    assert (chain["entry"], chain["prev"], chain["next"]) == (entry.peer, entry.peer, None)
    assert chain["tokens"] > 0
    give_up(leaving)
    (part,) = leaving.until(lambda status: status["slices"][0]["state"] == "draining")["slices"]
    assert (part["in_use"], part["announced"]) == (1, False)
    began = time.monotonic()
    # At once even for an entry that has not heard of it: a refused opening is tried elsewhere.
    again = Answer(entry)
    assert again.whole() == expected
    assert again.end()["intelnav"]["chain"][-1]["peer"] == staying.peer
    until(lambda: hosts(entry) == {staying.peer}, 10)
    assert time.monotonic() - began < 60
    assert running.whole()[:TOKENS] == expected
    leaving.until(lambda status: status["slices"] == [])
    assert leaving.status()["sessions"] == 0


def test_edits_of_one_slice_change_no_answer_through_the_other_two(tmp_path: Path) -> None:
    # The same weights under another name are another model.
    renamed = tmp_path / "renamed.gguf"
    renamed.write_bytes(embedded_model().read_bytes().replace(b"Smollm2 135M", b"Smollm2 136M", 1))
    kept = [{"model": MODEL, "layers": LAYERS}, {"model": str(renamed), "layers": "16..30"}]
    (port,) = free_ports(1)
    network = {"listen": f"127.0.0.1:{port}"}
    with daemons(tmp_path, "host", "entry") as (host, entry):
        host.configure(slices=[*kept, {"model": MODEL, "layers": "2..4"}], network=network)
        entry.configure(
            entry=[
                {"model": MODEL, "layers": "0..8", "name": "one"},
                {"model": str(renamed), "layers": "0..16", "name": "two"},
            ],
            network={"listen": "none", "bootstrap": [f"127.0.0.1:{port}"]},
        )
        for daemon in (host, entry):
            daemon.start()
        for daemon in (host, entry):
            daemon.until_ready()
        for name in ("one", "two"):
            until(lambda name=name: (entry.get(f"/route/{name}") or {}).get("routes", []) != [])  # type: ignore[misc]
        expected = [Answer(entry, model=name).whole() for name in ("one", "two")]
        running = [Answer(entry, 3 * TOKENS, name).under_way() for name in ("one", "two")]
        for edited in (["4..6"], ["4..6", "2..4"], []):
            host.configure(
                slices=[*kept, *({"model": MODEL, "layers": layers} for layers in edited)], network=network
            )
            host.until(
                lambda status, edited=edited: (  # type: ignore[misc]
                    [part["layers"] for part in status["slices"]] == [LAYERS, "16..30", *edited]
                    and all(part["state"] == "ready" for part in status["slices"])
                )
            )
        assert all(answer.is_alive() for answer in running)
        assert [answer.whole()[:TOKENS] for answer in running] == expected


def test_a_wedged_session_does_not_outlive_the_grace(swarm: list[Daemon]) -> None:
    entry = swarm[2]
    running = Answer(entry, 1000).under_way()
    leaving, staying = serving(swarm)
    assert leaving.process is not None
    (worker,) = psutil.Process(leaving.process.pid).children()
    worker.suspend()
    began = time.monotonic()
    give_up(leaving, grace=1.0)
    last = running.end()
    assert last["error"]["code"] == "draining"
    leaving.until(lambda status: status["slices"] == [])
    # Far less than what a worker may owe an answer.
    assert 1.0 <= time.monotonic() - began < 30
    assert not worker.is_running()
    assert Answer(entry, 4).end()["intelnav"]["chain"][-1]["peer"] == staying.peer


def test_a_host_that_is_told_to_stop_sees_its_answers_out(swarm: list[Daemon]) -> None:
    entry = swarm[2]
    running = Answer(entry).under_way()
    leaving, staying = serving(swarm)
    assert leaving.process is not None
    leaving.process.terminate()
    leaving.until(lambda status: bool(status["stopping"]))
    assert Answer(entry, 4).end()["intelnav"]["chain"][-1]["peer"] == staying.peer
    running.whole()
    assert leaving.process.wait(30) == 0
    assert "draining: 1 answer left, 30 s at most" in leaving.log


def test_an_entry_that_is_told_to_stop_refuses_questions_and_ends_its_answers(swarm: list[Daemon]) -> None:
    entry = swarm[2]
    running = Answer(entry).under_way()
    assert entry.process is not None
    entry.process.send_signal(signal.SIGINT)
    entry.until(lambda status: bool(status["stopping"]))
    with entry.client() as client:
        refused = client.post("/v1/completions", json={"model": "smollm2", "prompt": "a"})
        health = client.get("/health")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert "stopping" in refused.json()["error"]["message"]
    assert health.status_code == 503
    running.whole()
    assert entry.process.wait(30) == 0


def test_an_answer_whose_prompt_is_not_read_yet_is_under_way_as_well(swarm: list[Daemon]) -> None:
    entry = swarm[2]
    expected = Answer(entry).whole()
    assert entry.process is not None
    (worker,) = psutil.Process(entry.process.pid).children()
    worker.suspend()
    running = Answer(entry)
    until(lambda: "intelnav_answers_total 2.0" in metrics(entry))
    entry.process.terminate()
    until(lambda: entry.get("/health") == {"ready": False, "reason": "this node is stopping"})
    worker.resume()
    assert running.whole() == expected
    assert entry.process.wait(30) == 0


def metrics(daemon: Daemon) -> str:
    with daemon.client() as client:
        return client.get("/metrics").text


def test_a_second_signal_stops_at_once_and_an_idle_node_needs_no_second_one(swarm: list[Daemon]) -> None:
    entry = swarm[2]
    Answer(entry, 1000).under_way()
    leaving, staying = serving(swarm)
    assert leaving.process is not None
    leaving.process.terminate()
    leaving.until(lambda status: bool(status["stopping"]))
    leaving.process.terminate()
    assert leaving.process.wait(10) == 0
    assert "stopping at once" in leaving.log
    until(lambda: staying.status()["sessions"] == 0)
    began = time.monotonic()
    assert staying.stop() == 0
    # The aim is 0.5 s, on a machine that is not busy with other tests.
    assert time.monotonic() - began < 5
