"""`docker compose up` on the real image: a swarm from nothing, and what happens to it."""

import re
import time
from collections.abc import Iterator

import httpx
import pytest
from openai import APIError, APIStatusError

from tests.appliance.engine import ROOT, docker, inspect, run
from tests.appliance.swarm import MODEL, SYSTEM, Swarm, cover, swarm_in
from tests.waiting import until

pytestmark = [pytest.mark.appliance, pytest.mark.timeout(420)]

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    with swarm_in(tmp_path_factory.mktemp("swarm")) as made:
        made.up()
        yield made


def until_it_answers(swarm: Swarm, seconds: float = 90) -> None:
    """Wait until a chain over all layers is known; a route alone may still lead over a host that is gone."""

    def answers() -> bool:
        try:
            return not swarm.lacks() and "Paris" in swarm.ask(QUESTION).text
        except (APIError, httpx.HTTPError):
            return False

    try:
        until(answers, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{swarm.lacks()}\n{swarm.logs()}") from None


def layers_of(swarm: Swarm, name: str) -> list[str]:
    """The layers that the host in a container has loaded."""
    return [each["layers"] for each in swarm.status(name)["slices"]]


def in_the_chain(swarm: Swarm) -> tuple[str, str]:
    """The container of a host that answers are led over, and who it is."""
    hosts = {swarm.status(name)["peer"]: name for name in swarm.names("host")}
    peer = swarm.ask(QUESTION).peers[-1]
    return hosts[peer], peer


def test_it_comes_up_healthy_from_nothing(swarm: Swarm) -> None:
    assert {each.Name: each.Health for each in swarm.containers()} == {
        f"{swarm.project}-{name}": "healthy" for name in ("relay-1", "host-1", "host-2", "host-3", "entry-1")
    }


def test_a_question_is_answered_through_the_published_api_as_a_stream(swarm: Swarm) -> None:
    until_it_answers(swarm)
    answer = swarm.ask(QUESTION)
    assert "Paris" in answer.text
    assert len(answer.pieces) > 3
    assert cover(answer.layers)
    assert answer.layers[0] == "0..8"
    assert set(answer.peers[1:]) <= swarm.peers("host")
    assert answer.peers[0] == swarm.get("/status")["peer"]


def test_the_layers_are_spread(swarm: Swarm) -> None:
    until_it_answers(swarm)
    held = [swarm.status(name)["slices"] for name in swarm.names("host")]
    assert all(held)
    assert not any(each["layers"] in ("0..30", "8..30") for slices in held for each in slices)


def test_the_api_is_published_on_this_machine_alone(swarm: Swarm) -> None:
    bindings = {
        binding["HostIp"]
        for each in swarm.containers()
        for ports in (inspect(str(each.ID))["NetworkSettings"]["Ports"] or {}).values()
        for binding in ports or []
    }
    assert bindings == {"127.0.0.1"}


def test_chat_talks_to_it(swarm: Swarm) -> None:
    until_it_answers(swarm)
    assert swarm.command("run", "--rm", "-T", "chat", stdin=f"{QUESTION}\n").strip()
    chat = ["intelnav", "chat", "--node", "http://entry:8080", "--temperature", "0", "--system", SYSTEM]
    assert "Paris" in swarm.command("run", "--rm", "-T", "chat", *chat, stdin=f"{QUESTION}\n")


def test_each_host_has_a_folder_of_its_own(swarm: Swarm) -> None:
    assert len(swarm.peers("host")) == 3


def test_a_host_that_crashes_is_started_again(swarm: Swarm) -> None:
    until_it_answers(swarm)
    name = swarm.names("host")[1]
    before = swarm.status(name)["peer"]
    swarm.crash(name)
    until(lambda: inspect(name)["RestartCount"] == 1)
    until(lambda: inspect(name)["State"]["Health"]["Status"] == "healthy", 60)
    assert swarm.status(name)["peer"] == before
    until_it_answers(swarm)


def test_a_host_that_is_gone_is_covered_or_named_as_missing_and_can_be_replaced(swarm: Swarm) -> None:
    until_it_answers(swarm)
    before = swarm.peers("host")
    gone, peer = in_the_chain(swarm)
    docker("rm", "--force", gone)

    try:
        assert peer not in swarm.ask(QUESTION).peers
    except APIStatusError as error:
        assert re.search(r"layers \d+\.\.\d+", str(error))
    swarm.up()
    # The new one took the folder, and so is who the old one was.
    assert swarm.peers("host") == before
    until_it_answers(swarm)


def test_a_host_that_is_cut_off_comes_back(swarm: Swarm) -> None:
    until_it_answers(swarm)
    network = f"{swarm.project}_swarm"
    cut, peer = in_the_chain(swarm)
    docker("network", "disconnect", network, cut)
    try:
        until(lambda: peer not in {each["id"] for each in swarm.get("/status")["peers"]}, 60)
    finally:
        docker("network", "connect", network, cut)
    until_it_answers(swarm, 150)
    until(lambda: inspect(cut)["State"]["Health"]["Status"] == "healthy", 60)
    until(lambda: peer in {each["peer"] for each in swarm.get("/peers")["contacts"]}, 120)


def test_an_edit_is_picked_up_live_and_a_wrong_one_changes_nothing(swarm: Swarm) -> None:
    started = inspect(swarm.names("entry")[0])["State"]["StartedAt"]

    def names() -> list[str]:
        return [model["id"] for model in swarm.get("/v1/models")["data"]]

    assert names() == [MODEL]
    front = {"model": "smollm2-135m-instruct-q4_1", "layers": "0..8"}
    swarm.edit("entry.yaml", entry=[{**front, "name": MODEL}, {**front, "name": "another"}])
    until(lambda: names() == [MODEL, "another"], 30)
    assert "Paris" in swarm.ask(QUESTION, model="another").text
    swarm.edit("entry.yaml", entry=[{**front, "name": "no name"}])
    until(lambda: not swarm.get("/status")["config"]["valid"], 30)
    assert "entry[0].name" in swarm.get("/status")["config"]["error"]
    assert names() == [MODEL, "another"]
    swarm.edit("entry.yaml", entry=[{**front, "name": MODEL}])
    until(lambda: names() == [MODEL], 30)
    assert swarm.get("/status")["config"]["valid"]
    assert inspect(swarm.names("entry")[0])["State"]["StartedAt"] == started


def test_more_hosts_spread_the_layers_by_themselves(swarm: Swarm) -> None:
    swarm.command("up", "--wait", "--scale", "host=5", "--no-recreate")
    names = swarm.names("host")
    assert len(names) == 5
    assert len(swarm.peers("host")) == 5
    until(lambda: all(swarm.status(name)["slices"] for name in names), 90)
    until_it_answers(swarm)
    # A chat is no reason to have fewer again.
    assert swarm.command("run", "--rm", "-T", "chat", stdin=f"{QUESTION}\n").strip()
    assert swarm.names("host") == names
    swarm.command("up", "--wait", "--scale", "host=3", "--no-recreate")
    until_it_answers(swarm, 150)


def test_a_key_that_was_backed_up_makes_a_node_who_it_was(swarm: Swarm) -> None:
    [relay] = swarm.names("relay")
    before = swarm.status(relay)["peer"]
    swarm.command("cp", "relay:/var/lib/intelnav/peer.key", "relay.key")
    swarm.command("cp", "host:/var/lib/intelnav/2/peer.key", "host.key")
    assert (swarm.folder / "host.key").stat().st_size == (swarm.folder / "relay.key").stat().st_size == 32
    docker("exec", relay, "rm", "/var/lib/intelnav/peer.key")
    swarm.command("restart", "relay")
    until(lambda: inspect(relay)["State"]["Health"]["Status"] == "healthy", 60)
    assert swarm.status(relay)["peer"] != before

    # Of a container that is gone, too.
    docker("rm", "--force", relay)
    page = (ROOT / "docs/docker.md").read_text()
    [restore] = [block for block in page.split("```") if "< relay.key" in block]
    run("sh", "-ec", restore, folder=swarm.folder)
    assert swarm.status(relay)["peer"] == before
    assert docker("exec", relay, "stat", "-c", "%a", "/var/lib/intelnav/peer.key").strip() == "600"


def test_all_leave_within_seconds_and_with_exit_code_0(swarm: Swarm) -> None:
    names = [str(each.Name) for each in swarm.containers()]
    begin = time.monotonic()
    swarm.command("stop")
    assert time.monotonic() - begin < 15
    assert {name: inspect(name)["State"]["ExitCode"] for name in names} == dict.fromkeys(names, 0)
    with pytest.raises(httpx.ConnectError):
        swarm.get("/health")


def test_after_down_and_up_all_are_who_they_were_and_answer(swarm: Swarm) -> None:
    swarm.up()
    until_it_answers(swarm, 150)
    before = swarm.peers("host")
    relay = swarm.peers("relay")
    swarm.down()
    assert swarm.containers() == []
    swarm.up()
    until_it_answers(swarm, 150)
    assert swarm.peers("relay") == relay
    assert swarm.peers("host") == before
    assert all(layers_of(swarm, name) for name in swarm.names("host"))
