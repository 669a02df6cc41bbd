"""The entry with real workers and real hops around it; the model is tiny and knows nothing."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import pytest

from intelnav.chain import entry as entry_module
from intelnav.chain.entry import OPENINGS, Entry, EntryModel
from intelnav.chain.hop import HopService
from intelnav.chain.interface import Ending, Piece, Request
from intelnav.chain.ring import HopError, Ring, Rings, Terms
from intelnav.chain.route import RouteHop
from intelnav.chain.traffic import Traffic
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import Code, ConfigError, EngineError, IntelNavError, PeerError
from intelnav.domain.hidden import Dtype
from intelnav.domain.identity import Identity, PeerId
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import Done, Forward, Output, SliceEngine
from intelnav.engine.process import SliceProcess
from intelnav.net.peers import Peers
from tests.chain.conftest import ROOM
from tests.hosts import Hosted, hosting
from tests.reference import PlainLlama
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

PROMPT = "hello there"
Load = Callable[[str], Awaitable[SliceProcess]]


class Told:
    """A discovery of adverts that never change."""

    def __init__(self, adverts: list[Advert]) -> None:
        self._adverts = adverts

    async def providers(self, model: str) -> list[Advert]:
        return [advert for advert in self._adverts if advert.model == model]


@dataclass
class Asking:
    """An entry, and the nodes around it."""

    entry: Entry
    rings: Rings
    peers: Peers
    front: SliceEngine
    hosts: list[Hosted]

    async def ask(self, **changes: object) -> tuple[list[int], str, Ending]:
        """The whole answer: token ids, text, ending."""
        request = replace(Request("tiny", prompt=PROMPT, max_tokens=12), **changes)  # type: ignore[arg-type] # test's own
        tokens: list[int] = []
        text = ""
        async with asyncio.timeout(20), self.entry.answer(request) as answer:
            async for item in answer:
                if isinstance(item, Ending):
                    return tokens, text, item
                tokens += item.tokens
                text += item.text
        raise AssertionError("an answer without an ending")

    async def idle(self) -> None:
        """Wait until nothing of any answer is left anywhere."""
        engines = [self.front, *(host.engine for host in self.hosts)]
        await eventually(lambda: not len(self.rings) and not any(engine.in_use for engine in engines))


class NothingHosted:
    def ready(self, model: str) -> list[SliceEngine]:
        return []

    def draining(self, model: str) -> list[SliceEngine]:
        return []


@pytest.fixture
async def asking(load: Load, cid: str) -> AsyncIterator[Callable[..., Awaitable[Asking]]]:
    """Makes an entry with layers 0..2 and a host for each range that is named."""
    async with AsyncExitStack() as stack:

        async def make(*hosted: str, head: str | None = None, extra: tuple[Advert, ...] = ()) -> Asking:
            hosts = [
                await stack.enter_async_context(hosting({cid: await load(layers)}, seed=10 + number))
                for number, layers in enumerate(hosted)
            ]
            front = await load("0..2")
            kept = await load(head) if head is not None else None

            traffic = Traffic()
            peers = Peers(Identity(b"\x09" * 32), traffic, limit=4)
            stack.push_async_callback(peers.close)
            traffic.rings = rings = Rings(peers)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            traffic.hops = HopService(peers, NothingHosted(), tasks, idle_seconds=300)
            model = EntryModel(
                lambda: cid, "tiny", Dtype.F32, lambda: front, None if kept is None else lambda: kept
            )
            discovery = Told([*extra, *(host.advert(cid) for host in hosts)])
            return Asking(Entry(peers.own, [model], discovery, rings), rings, peers, front, hosts)

        yield make


@pytest.fixture(scope="module")
def expected(model: Path) -> list[int]:
    """What the whole model says."""
    return PlainLlama(model, 64).greedy(PROMPT, 12)


Make = Callable[..., Awaitable[Asking]]


async def test_the_answer_is_the_whole_models(asking: Make, expected: list[int]) -> None:
    nodes = await asking("2..4", "4..6")
    tokens, _, ending = await nodes.ask()
    assert tokens == expected
    assert [str(stage.layers) for stage in ending.chain] == ["0..2", "2..4", "4..6"]
    await nodes.idle()


async def test_a_kept_head_gives_the_same_answer_over_a_host_that_stops_early(
    asking: Make, expected: list[int]
) -> None:
    nodes = await asking("2..4", "4..6", head="5..6")
    tokens, _, ending = await nodes.ask()
    assert tokens == expected
    assert [str(stage.layers) for stage in ending.chain] == ["0..2", "2..4", "4..5", "5..6"]
    await nodes.idle()


async def test_a_prompt_of_several_batches_is_answered(asking: Make, model: Path) -> None:
    nodes = await asking("2..4", "4..6")
    prompt = "hello there " * 4
    whole = PlainLlama(model, 64)
    assert len(whole.tokenize(prompt)) > ROOM.max_rows
    tokens, _, _ = await nodes.ask(prompt=prompt, max_tokens=4)
    assert tokens == whole.greedy(prompt, 4)


async def test_activations_that_come_back_to_a_kept_head_are_expected(
    asking: Make, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tiny model's messages would be small enough for anybody.
    monkeypatch.setattr("intelnav.net.peers.CONTROL_BYTES", 1024)
    nodes = await asking("2..4", "4..6", head="5..6")
    prompt = "hello there " * 4
    tokens, _, _ = await nodes.ask(prompt=prompt, max_tokens=4)
    assert tokens == PlainLlama(model, 64).greedy(prompt, 4)


async def test_a_dead_peer_is_passed_over(asking: Make, cid: str, expected: list[int]) -> None:
    dead = Advert(PeerId(b"\x33" * 32), (Address("127.0.0.1", 9),), cid, (LayerRange(2, 6),))
    nodes = await asking("2..4", "4..6", extra=(dead,))
    assert (await nodes.ask())[0] == expected


async def test_a_peer_that_refuses_is_passed_over(asking: Make, expected: list[int]) -> None:
    nodes = await asking("2..4", "4..6", "4..6")
    nodes.hosts[1].hops.end_all("leaving")
    tokens, _, ending = await nodes.ask()
    assert tokens == expected
    assert ending.chain[2].peer == str(nodes.hosts[2].peers.own)


async def test_who_refused_is_remembered_and_not_asked_again(
    asking: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = await asking("2..4", "4..6", "4..6")
    leaving, other = nodes.hosts[1], nodes.hosts[2]
    leaving.hops.end_all("leaving")
    asked: list[PeerId] = []
    opening = nodes.rings.open

    def noting(route: Sequence[RouteHop], terms: Terms) -> AbstractAsyncContextManager[Ring]:
        asked.append(route[-1].peer)
        return opening(route, terms)

    monkeypatch.setattr(nodes.rings, "open", noting)
    for _ in range(2):
        await nodes.ask()
    assert asked == [leaving.peers.own, other.peers.own, other.peers.own]
    figures = nodes.rings.book.figures(leaving.peers.own, time.monotonic())
    assert figures is not None
    assert figures.failures == (Code.DRAINING,)


async def test_answers_and_pings_tell_what_to_expect(asking: Make, cid: str) -> None:
    nodes = await asking("2..4", "4..6")
    _, _, ending = await nodes.ask()
    expect = nodes.rings.book.estimates(cid, time.monotonic())
    for host, report in zip(nodes.hosts, ending.chain[1:], strict=True):
        figures = nodes.rings.book.figures(host.peers.own, time.monotonic())
        assert figures is not None
        assert figures.layers == {cid: pytest.approx(report.milliseconds / 2)}
        assert figures.round_trip is not None
        assert expect(host.peers.own).leg == pytest.approx(figures.round_trip / 2, rel=0.1)
    assert nodes.rings.book.figures(nodes.peers.own, time.monotonic()) is None
    told = await nodes.entry.preview("tiny")
    hops = told["routes"][0]["hops"]
    assert [hop["peer"] for hop in hops] == [str(host.peers.own) for host in nodes.hosts]
    legs = sum(1.5 * expect(host.peers.own).leg for host in nodes.hosts)
    computing = sum(report.milliseconds for report in ending.chain[1:])
    assert told["routes"][0]["milliseconds"] == pytest.approx(legs + computing, rel=0.1, abs=0.2)


async def test_a_near_peer_is_taken_before_a_far_one(asking: Make, cid: str) -> None:
    nodes = await asking("2..6", "2..6")
    for host, milliseconds in zip(nodes.hosts, (300.0, 3.0), strict=True):
        nodes.rings.book.measured(host.peers.own, milliseconds, time.monotonic())
    _, _, ending = await nodes.ask()
    assert ending.chain[1].peer == str(nodes.hosts[1].peers.own)


async def test_a_crowd_of_dead_peers_costs_a_bounded_number_of_attempts(asking: Make, cid: str) -> None:
    dead = tuple(
        Advert(PeerId(bytes([n]) * 32), (Address("127.0.0.1", 9),), cid, (LayerRange(2, 6),))
        for n in range(100, 200)
    )
    nodes = await asking(extra=dead)
    with pytest.raises(PeerError, match=r"no chain over layers 2\.\.6 could be opened; refused: ") as caught:
        await nodes.ask()
    assert str(caught.value).count("cannot be reached") == OPENINGS
    assert len(nodes.rings.book) == OPENINGS
    await nodes.idle()


async def test_an_opening_that_took_too_long_is_not_tried_again(
    asking: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = await asking("2..6", "2..6")
    nodes.hosts[0].hops.end_all("leaving")
    monkeypatch.setattr(entry_module, "OPENING_SECONDS", 0.0)
    with pytest.raises(PeerError, match=r"could be opened; refused: .*this node is leaving") as caught:
        await nodes.ask()
    assert caught.value.code == Code.DRAINING
    assert (await nodes.ask())[2].chain[1].peer == str(nodes.hosts[1].peers.own)


async def test_a_preview_names_chains_alternates_and_missing_layers(asking: Make, cid: str) -> None:
    nodes = await asking("2..4", "4..6", "4..6")
    told = await nodes.entry.preview("tiny", 3)
    assert json.loads(json.dumps(told)) == told
    assert (told["layers"], told["missing"], told["problem"]) == ("2..6", [], "")
    (route,) = told["routes"]
    first, second = route["hops"]
    assert (first["layers"], second["layers"]) == ("2..4", "4..6")
    assert first["addresses"] == [str(nodes.hosts[0].address)]
    assert first["alternates"] == []
    assert [other["peer"] for other in second["alternates"]] == [str(nodes.hosts[2].peers.own)]
    assert route["milliseconds"] == pytest.approx(first["milliseconds"] + second["milliseconds"], abs=0.01)
    with pytest.raises(ConfigError, match="served: tiny"):
        await nodes.entry.preview("other")


async def test_a_preview_without_a_chain_says_why(asking: Make) -> None:
    told = await (await asking("2..4")).entry.preview("tiny")
    assert told["missing"] == ["4..6"]
    assert "hosts layers 4..6" in told["problem"]
    assert told["routes"] == []


async def test_a_model_that_is_all_here_needs_no_route(asking: Make, load: Load) -> None:
    nodes = await asking()
    whole = await load("0..6")
    nodes.entry.serves = [replace(nodes.entry.serves[0], front=lambda: whole)]
    assert await nodes.entry.preview("tiny") == {"layers": None, "missing": [], "problem": "", "routes": []}


async def test_an_entry_that_closes_lets_its_answers_end_and_takes_no_more(asking: Make) -> None:
    entry = (await asking("2..6")).entry
    async with entry.answer(Request("tiny", prompt=PROMPT, max_tokens=4)) as answer:
        await anext(answer)
        assert len(entry) == 1
        entry.close("this node is stopping")
        entry.serves = []
        with pytest.raises(PeerError, match="is stopping") as refusal:
            async with entry.answer(Request("tiny", prompt=PROMPT)):
                pass
        assert refusal.value.code == Code.DRAINING
        *_, last = [item async for item in answer]
        assert isinstance(last, Ending)
        assert last.tokens == 4
    assert len(entry) == 0


async def test_a_front_that_is_loaded_anew_is_not_listed_and_refuses_for_a_while(asking: Make) -> None:
    entry = (await asking("2..6")).entry

    def draining() -> SliceEngine:
        raise PeerError(Code.DRAINING, "it is loaded anew")

    entry.serves = [replace(entry.serves[0], front=draining)]
    assert entry.models() == []
    with pytest.raises(PeerError, match="loaded anew"):
        async with entry.answer(Request("tiny", prompt=PROMPT)):
            pass
    assert len(entry) == 0


async def test_a_ring_that_falls_silent_makes_all_its_hops_suspects(
    asking: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = await asking("2..4", "4..6")
    monkeypatch.setattr(nodes.hosts[0].engine, "submit", lambda forward, done: None)
    with pytest.raises(HopError, match="nothing came"):
        async with nodes.entry.answer(Request("tiny", prompt=PROMPT)) as answer:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_give_up, nodes)
                try:
                    await anext(answer)
                except HopError as error:
                    silent = error
            raise silent
    for host in nodes.hosts:
        figures = nodes.rings.book.figures(host.peers.own, time.monotonic())
        assert figures is not None
        assert figures.failures == (Code.TIMEOUT,)


async def _give_up(nodes: Asking) -> None:
    """What `watch_silence` does after two minutes."""
    await eventually(lambda: any(ring.waiting_since is not None for ring in nodes.rings._open.values()))
    for ring in nodes.rings._open.values():
        ring.give_up("nothing came")


async def test_when_all_refuse_the_error_says_who_and_why(asking: Make) -> None:
    nodes = await asking("2..4", "4..6")
    nodes.hosts[1].hops.end_all("leaving")
    with pytest.raises(PeerError, match=r"layers 4\.\.6.*this node is leaving") as caught:
        await nodes.ask()
    assert caught.value.code == Code.DRAINING
    await nodes.idle()


async def test_missing_layers_are_named(asking: Make) -> None:
    nodes = await asking("2..4")
    with pytest.raises(PeerError, match=r"hosts layers 4\.\.6"):
        await nodes.ask()
    await nodes.idle()


async def test_a_hop_lost_while_answering_is_an_error_that_names_it(asking: Make) -> None:
    nodes = await asking("2..4", "4..6")
    lost = nodes.hosts[1]
    with pytest.raises(PeerError, match=lost.peers.own.short):
        async with nodes.entry.answer(Request("tiny", prompt=PROMPT, max_tokens=40)) as answer:
            assert isinstance(await anext(answer), Piece)
            await lost.peers.close()
            async for _ in answer:
                pass
    await nodes.idle()


async def test_a_hop_that_sends_rubbish_to_a_kept_head_is_named(
    asking: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = await asking("2..6", head="5..6")
    host = nodes.hosts[0]
    submit = host.engine.submit

    def spoilt(forward: Forward, done: Done) -> None:
        def spoil(outcome: Output | IntelNavError) -> None:
            assert isinstance(outcome, Output)
            assert outcome.hidden is not None
            payload = b"\xff" * len(outcome.hidden.payload)
            done(replace(outcome, hidden=replace(outcome.hidden, payload=payload)))

        submit(forward, spoil)

    monkeypatch.setattr(host.engine, "submit", spoilt)
    with pytest.raises(HopError, match=host.peers.own.short):
        await nodes.ask()
    await nodes.idle()
    figures = nodes.rings.book.figures(host.peers.own, time.monotonic())
    assert figures is not None
    assert figures.failures == (Code.BAD_REQUEST,)


async def test_leaving_early_leaves_nothing_behind(asking: Make) -> None:
    nodes = await asking("2..4", "4..6")
    for _ in range(3 * ROOM.sessions):
        async with nodes.entry.answer(Request("tiny", prompt=PROMPT, max_tokens=40)) as answer:
            await anext(answer)
    await nodes.idle()


async def test_limits_and_stop_strings_end_an_answer(asking: Make, expected: list[int]) -> None:
    nodes = await asking("2..6")
    tokens, text, ending = await nodes.ask(max_tokens=5)
    assert (tokens, ending.reason, ending.tokens) == (expected[:5], "length", 5)
    _, longer, _ = await nodes.ask()
    stop = longer[3:5]
    _, cut, ending = await nodes.ask(stop=(stop,))
    assert (cut, ending.reason) == (longer[: longer.index(stop)], "stop")
    assert longer.startswith(text.rstrip("\ufffd"))
    tokens, _, ending = await nodes.ask(max_tokens=None)
    assert len(tokens) + ending.prompt_tokens == ROOM.context or ending.reason == "stop"


async def test_bad_requests_are_refused_before_they_cost_anything(asking: Make) -> None:
    nodes = await asking("2..6")
    with pytest.raises(ConfigError, match="served: tiny"):
        await nodes.ask(model="other")
    with pytest.raises(PeerError) as caught:
        await nodes.ask(prompt="hello " * 80)
    assert caught.value.code == Code.TOO_LONG
    await nodes.idle()


async def test_who_is_refused_for_want_of_room_costs_no_work_on_the_prompt(
    asking: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await asking("2..6")
    taken = [await made.front.open(None) for _ in range(ROOM.sessions)]
    monkeypatch.setattr(made.front, "tokenize", lambda *_, **__: pytest.fail("the prompt was looked at"))
    with pytest.raises(IntelNavError) as error:
        await made.ask()
    assert error.value.code == Code.BUSY
    for sequence in taken:
        made.front.close(sequence)


async def test_without_a_front_there_is_an_error_and_no_model(asking: Make) -> None:
    nodes = await asking("2..6")

    def gone() -> SliceEngine:
        raise EngineError("layers 0..2 are loading")

    nodes.entry.serves = [replace(nodes.entry.serves[0], front=gone)]
    assert nodes.entry.models() == []
    with pytest.raises(EngineError, match="loading"):
        await nodes.ask()
