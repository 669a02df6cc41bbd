from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.controller.auto import MOVE_SECONDS, ROUND_SECONDS, Candidate, Picked, pick
from intelnav.controller.coverage import Coverage, Offer, seen
from intelnav.domain.identity import PeerId
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange

GIB = 2**30
STEP_SECONDS = 5
POLL_SECONDS = 15
LOAD_SECONDS = 40
# From an advert to when the last peer can see it; it does so at its next poll, within 40 s in all.
MOST_DELAY = 25


def peer(number: int) -> PeerId:
    return PeerId(sha256(str(number).encode()).digest())


def model(name: str = "m", blocks: int = 12, layer: int = GIB, **ends: int) -> Candidate:
    return Candidate(ModelRef("name", name), f"cid of {name}", blocks, layer, **ends)


@dataclass(eq=False)
class Hosted:
    """One slice of a node, from when it is loaded to when it is given up."""

    picked: Picked
    ready: float
    gone: float = inf

    def has(self, model: Candidate, at: float) -> bool:
        return self.picked.cid == model.cid and self.ready <= at < self.gone


@dataclass(eq=False)
class Node:
    """One that picks by itself: what it has hosted and what it has seen. `offset` is when it asks, within a poll."""

    id: PeerId
    memory: int
    offset: int
    hosted: list[Hosted] = field(default_factory=list)
    seen: dict[str, Coverage] = field(default_factory=dict)
    moves: list[float] = field(default_factory=list)


class Swarm:
    """Nodes that see what others have loaded late, each at its own pace, in steps of a few seconds."""

    def __init__(self, models: list[Candidate], memories: list[int], seed: int) -> None:
        self.models = models
        self.random = Random(seed)
        self.delays: dict[tuple[PeerId, PeerId], int] = {}
        numbers = self.random.sample(range(10**6), len(memories))
        self.nodes = [
            Node(peer(number), memory, self.random.randrange(0, POLL_SECONDS, STEP_SECONDS))
            for number, memory in zip(numbers, memories, strict=True)
        ]
        self.killed: list[Node] = []
        self.now = 0.0

    def kill(self) -> None:
        """One node is gone at once; the others see that as late as anything else."""
        victim = self.nodes.pop(self.random.randrange(len(self.nodes)))
        for slice in victim.hosted:
            slice.gone = min(slice.gone, self.now)
        self.killed.append(victim)

    def run(self, seconds: float) -> Iterator[float]:
        """Let time pass; yields after each step."""
        until = self.now + seconds
        while self.now < until:
            for node in self.nodes:
                if self.now % POLL_SECONDS == node.offset:
                    self._poll(node)
            self.now += STEP_SECONDS
            yield self.now

    def counts(self, model: Candidate) -> list[int]:
        """How many nodes have each layer loaded at this moment."""
        return [sum(self._has(node, model, layer) for node in self.nodes) for layer in range(model.blocks)]

    def last_move(self) -> float:
        return max((at for node in self.nodes for at in node.moves), default=0.0)

    def _has(self, node: Node, model: Candidate, layer: int) -> bool:
        return any(
            slice.picked.layers.start <= layer < slice.picked.layers.end
            for slice in node.hosted
            if slice.has(model, self.now)
        )

    def _poll(self, node: Node) -> None:
        for model in self.models:
            offers = [
                offer for other in (*self.nodes, *self.killed) for offer in self._offers(other, node, model)
            ]
            before = node.seen.get(model.cid)
            node.seen[model.cid] = seen(before, offers, node.id, model.blocks, self.now)
        kept = [slice for slice in node.hosted if slice.gone == inf]
        for slice in kept:
            if slice.ready <= self.now:
                slice.picked = replace(slice.picked, since=slice.ready)
        have = [slice.picked for slice in kept]
        after = pick(node.memory, self.models, node.seen, node.id, have, self.now)
        for slice in kept:
            if slice.picked not in after:
                slice.gone = self.now
                node.moves.append(self.now)
        node.hosted += [Hosted(held, self.now + LOAD_SECONDS) for held in after if held not in have]

    def _offers(self, other: Node, to: Node, model: Candidate) -> Iterator[Offer]:
        """What `to` sees of `other`: how it was a while ago."""
        delay = self.delays.setdefault((other.id, to.id), self.random.randrange(MOST_DELAY))
        for slice in other.hosted:
            if slice.has(model, self.now - delay):
                yield other.id, slice.picked.layers


def settle(swarm: Swarm, seconds: float) -> None:
    """Let time pass, in which no layer that someone hosts is lost."""
    before = [swarm.counts(model) for model in swarm.models]
    for _ in swarm.run(seconds):
        after = [swarm.counts(model) for model in swarm.models]
        for had, has in zip(before, after, strict=True):
            assert all(now or not then for then, now in zip(had, has, strict=True)), (swarm.now, had, has)
        before = after


HOUR = 3600.0


@pytest.mark.parametrize("count", range(1, 13))
def test_nodes_that_start_at_once_cover_what_they_can_and_stop_moving(count: int) -> None:
    """Four nodes are just enough for the twelve layers."""
    for seed in range(3):
        swarm = Swarm([model()], [3 * GIB] * count, seed)
        settle(swarm, HOUR)
        counts = swarm.counts(swarm.models[0])
        assert sum(map(bool, counts)) == min(12, 3 * count)
        # Nobody hosts what is hosted twice more often than what is lacked most.
        assert max(counts) - min(counts) <= 1
        assert swarm.last_move() < HOUR / 2


@pytest.mark.parametrize("seed", range(3))
def test_layers_that_do_not_divide_and_ends_that_take_more(seed: int) -> None:
    """Of 31 layers 5 fit, at the ends 4 and 3: six in between and two at the ends are just enough."""
    uneven = model(blocks=31, fixed=GIB // 4, first=GIB, last=2 * GIB)
    swarm = Swarm([uneven], [6 * GIB] * 8, seed)
    settle(swarm, HOUR)
    assert all(swarm.counts(uneven))
    assert swarm.last_move() < HOUR / 2


@pytest.mark.parametrize("seed", range(5))
def test_nodes_of_all_sizes(seed: int) -> None:
    """With twice as much memory as all layers take, whatever the sizes are."""
    swarm = Swarm([model(blocks=24)], [size * GIB for size in (1, 2, 3, 4, 5, 6, 7, 8, 12)], seed)
    settle(swarm, HOUR)
    assert all(swarm.counts(swarm.models[0]))
    assert swarm.last_move() < HOUR * 3 / 4


@pytest.mark.parametrize("seed", range(3))
def test_the_layers_of_a_killed_node_are_covered_again(seed: int) -> None:
    swarm = Swarm([model()], [3 * GIB] * 6, seed)
    settle(swarm, HOUR)
    for _ in range(2):
        swarm.kill()
        settle(swarm, HOUR / 2)
        assert all(swarm.counts(swarm.models[0]))
        assert swarm.last_move() < swarm.now - HOUR / 4


def test_a_second_model_is_hosted_once_the_first_one_is_whole() -> None:
    first, second = model("first", blocks=6), model("second", blocks=6)
    swarm = Swarm([first, second], [3 * GIB] * 5, seed=1)
    settle(swarm, HOUR)
    assert all(swarm.counts(first))
    assert all(swarm.counts(second))


def test_what_is_left_of_the_memory_goes_to_what_nobody_hosts() -> None:
    swarm = Swarm([model("small", blocks=2), model("large", blocks=20)], [6 * GIB], seed=1)
    settle(swarm, HOUR)
    assert swarm.counts(swarm.models[0]) == [1, 1]
    assert sum(swarm.counts(swarm.models[1])) == 4
    assert swarm.last_move() == 0


M = model()
LOW, OWN, HIGH = sorted(peer(number) for number in range(3))
LEFT, RIGHT = LayerRange(0, 6), LayerRange(6, 12)


def known(*offers: Offer, at: float = 0.0) -> dict[str, Coverage]:
    return {M.cid: seen(None, offers, OWN, M.blocks, at)}


def held(layers: LayerRange, since: float = 0.0) -> Picked:
    return Picked(M.cid, layers, since)


def picked(coverage: dict[str, Coverage], *have: Picked, now: float) -> list[LayerRange]:
    return [slice.layers for slice in pick(6 * GIB, [M], coverage, OWN, have, now)]


def test_each_has_its_turn_by_peer_id() -> None:
    def moves(*others: Offer) -> list[int]:
        swarm = known(*others)
        return [
            turn
            for turn in range(8)
            if picked(swarm, held(LEFT), now=turn * ROUND_SECONDS + MOVE_SECONDS - 1) == [RIGHT]
        ]

    assert moves((HIGH, LEFT)) == [1, 3, 5, 7]
    assert moves((LOW, LEFT)) == [2, 4, 6]
    assert moves((LOW, LEFT), (HIGH, LEFT)) == [2, 5]
    # Who cannot leave its layers has no turn.
    assert moves((LOW, LayerRange(0, 7))) == list(range(1, 8))


def test_moves_are_made_at_the_beginning_of_a_turn() -> None:
    assert picked(known((HIGH, LEFT)), held(LEFT), now=ROUND_SECONDS + MOVE_SECONDS) == [LEFT]


@pytest.mark.parametrize(
    ("offers", "since"),
    [([(HIGH, LEFT), (HIGH, RIGHT)], 0.0), ([(HIGH, LEFT)], 500.0), ([], 0.0)],
    ids=["a host of what is lacked is gone", "its own slice is new", "the other host is new"],
)
def test_turns_begin_with_the_last_change(offers: list[Offer], since: float) -> None:
    before = seen(None, offers, OWN, M.blocks, 0.0)
    swarm = {M.cid: seen(before, [(HIGH, LEFT)], OWN, M.blocks, 500.0 if not since else 0.0)}
    for now in range(500, 500 + int(ROUND_SECONDS)):
        assert picked(swarm, held(LEFT, since), now=now) == [LEFT]
    assert picked(swarm, held(LEFT, since), now=500 + ROUND_SECONDS) == [RIGHT]


EVER = [turn * ROUND_SECONDS for turn in range(50)]


def test_nothing_is_given_up_that_nobody_else_hosts() -> None:
    for now in EVER:
        assert picked(known((HIGH, LayerRange(0, 5))), held(LEFT), now=now) == [LEFT]
        assert picked(known(), held(LEFT), now=now) == [LEFT]


def test_one_host_more_is_not_worth_a_move() -> None:
    twice = ((LOW, LEFT), (HIGH, RIGHT))
    for now in EVER:
        assert picked(known(*twice), held(LEFT), now=now) == [LEFT]
    moved = [picked(known(*twice, (HIGH, LEFT)), held(LEFT), now=now) for now in EVER]
    assert [RIGHT] in moved


def test_what_is_no_candidate_any_more_or_does_not_fit_is_given_up() -> None:
    other = Picked("cid of another", LEFT, 0.0)
    assert picked(known((LOW, LEFT)), other, now=1.0) == [RIGHT]
    assert pick(3 * GIB, [M], known(), OWN, [held(LEFT)], 1.0) != (held(LEFT),)
    assert pick(GIB - 1, [M], known(), OWN, [held(LEFT)], 1.0) == ()
    assert pick(6 * GIB, [], {}, OWN, [held(LEFT)], 1.0) == ()


def test_layers_whose_hosts_are_the_same_keep_their_time() -> None:
    before = seen(None, [(LOW, LEFT), (OWN, RIGHT)], OWN, 12, 5.0)
    after = seen(before, [(HIGH, LayerRange(4, 99)), (LOW, LEFT), (LOW, LayerRange(12, 13))], OWN, 12, 9.0)
    assert before.counts() == [1] * 6 + [0] * 6
    assert after.counts() == [1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 1]
    assert after.changed == (5.0,) * 4 + (9.0,) * 8


ranges = st.builds(
    lambda start, size: LayerRange(start, start + size), st.integers(0, 14), st.integers(1, 14)
)
offers = st.lists(st.tuples(st.sampled_from([LOW, OWN, HIGH]), ranges), max_size=8)


@given(
    offers=offers,
    have=st.lists(ranges, max_size=3),
    memory=st.integers(0, 30),
    ends=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    now=st.floats(0, 1000),
    data=st.data(),
)
def test_whatever_others_say_it_fits_is_within_the_model_and_is_picked_alike(
    offers: list[Offer],
    have: list[LayerRange],
    memory: int,
    ends: tuple[int, int],
    now: float,
    data: st.DataObject,
) -> None:
    uneven = Candidate(M.model, M.cid, 12, layer=2, fixed=1, first=ends[0], last=ends[1])
    had = [held(layers) for layers in have]
    after = pick(memory, [uneven], known(*offers), OWN, had, now)
    assert sum(uneven.need(slice.layers) for slice in after) <= memory
    assert all(slice.layers.end <= 12 for slice in after)
    shuffled = known(*data.draw(st.permutations(offers)))
    assert pick(memory, [uneven], shuffled, OWN, had, now) == after
