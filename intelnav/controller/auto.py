"""Which slices a node picks by itself, with `slices: auto`: what fits, and what the swarm lacks most.

Models are taken in the order in which they are given: the first that has a layer with the fewest hosts. Nodes see each
other's adverts late, so several may pick the same; that is mended by moves. A move takes what it gives up out of
service at once, so it is made only where nothing is lost: each layer has another host, that host does not move in the
same round, and nothing that matters has changed for so long that all who could move see the same adverts.

What all of them compute alike is their order: those who could leave a layer have their turns by peer id, one round
each, over and over, from the last change on that any of them had to see. Who moves is such a change. Who does not move
lets its turn pass, so that a peer that was told what to host keeps nobody else from moving.

Slices of one size cover a model with as many nodes as are just enough. Of mixed sizes some layers may stay without a
host unless there is memory to spare: a slice is moved as a whole, and only if nothing of it is missed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from intelnav.controller.coverage import Coverage
from intelnav.domain.identity import PeerId
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange

# Seconds of one turn. A move is made at its beginning, within the first MOVE_SECONDS: `pick` has to be asked more often
# than that, and an advert, or its end, has to be seen by all within 40 s, so that it is seen before the next turn.
ROUND_SECONDS = 120.0
MOVE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be picked. In bytes: `layer` is what each layer takes with its cache, `fixed` what any slice
    takes besides, `first` and `last` what those two layers take more.
    """

    model: ModelRef
    cid: str
    blocks: int
    layer: int
    fixed: int = 0
    first: int = 0
    last: int = 0

    def need(self, layers: LayerRange) -> int:
        """What a slice of it takes."""
        ends = self.first * (layers.start == 0) + self.last * (layers.end == self.blocks)
        return self.fixed + self.layer * len(layers) + ends


@dataclass(frozen=True, slots=True)
class Picked:
    """A slice that was picked at `since`; once it is announced, whoever keeps it sets that to when it was."""

    cid: str
    layers: LayerRange
    since: float


def pick(
    memory: int,
    candidates: Sequence[Candidate],
    coverage: Mapping[str, Coverage],
    own: PeerId,
    have: Sequence[Picked],
    now: float,
) -> tuple[Picked, ...]:
    """The slices to have from now on, given those that were picked before: `memory` bytes of them together.

    `coverage` says of each candidate's CID who else hosts it. At most one slice is moved at a time. Beside the first,
    slices are added only for layers that nobody hosts.
    """
    models = {candidate.cid: candidate for candidate in candidates}
    kept: list[Picked] = []
    for held in have:
        model = models.get(held.cid)
        if model is None or held.layers.end > model.blocks:
            continue
        if _need(models, kept) + model.need(held.layers) <= memory:
            kept.append(held)
    for held in kept:
        rest = [other for other in kept if other is not held]
        found = _poorest(memory - _need(models, rest), candidates, coverage, own, rest)
        if found is None or not _is_worth_it(found, held, coverage, rest):
            continue
        changed = max(held.since, _last_change(coverage[found.cid], found.layers))
        if _may_move(held, coverage[held.cid], own, now, changed):
            return (*rest, Picked(found.cid, found.layers, now))
    while True:
        found = _poorest(memory - _need(models, kept), candidates, coverage, own, kept)
        if found is None or (kept and (found.level > 0 or _is_news(found, coverage, now))):
            return tuple(kept)
        kept.append(Picked(found.cid, found.layers, now))


@dataclass(frozen=True, slots=True)
class _Found:
    """A slice that fits; the poorest of its layers has `level` hosts."""

    cid: str
    layers: LayerRange
    level: int


def _poorest(
    room: int,
    candidates: Sequence[Candidate],
    coverage: Mapping[str, Coverage],
    own: PeerId,
    beside: Sequence[Picked],
) -> _Found | None:
    """What the swarm lacks most and fits in `room` bytes; equals are shared out by peer id."""
    best: tuple[int, list[int], Candidate, list[LayerRange]] | None = None
    for model in candidates:
        counts = _counts(coverage[model.cid], model.cid, beside)
        windows = _windows(model, counts, room)
        if windows and (best is None or min(counts) < best[0]):
            best = min(counts), counts, model, windows
    if best is None:
        return None
    level, counts, model, windows = best
    worths = {window: _worth(counts, window) for window in windows}
    equals = [window for window in windows if worths[window] == max(worths.values())]
    chosen = equals[int.from_bytes(own.key, "big") % len(equals)]
    return _Found(model.cid, chosen, level)


def _counts(coverage: Coverage, cid: str, beside: Sequence[Picked]) -> list[int]:
    """The hosts of each layer, among them this node with what it has beside."""
    counts = coverage.counts()
    for held in beside:
        if held.cid == cid:
            for layer in range(held.layers.start, held.layers.end):
                counts[layer] += 1
    return counts


def _windows(model: Candidate, counts: Sequence[int], room: int) -> list[LayerRange]:
    """Slices as large as fit, laid side by side over each stretch of the poorest layers.

    Laid so, they leave no remainders between them that are smaller than a slice.
    """
    poorest = min(counts)
    found: list[LayerRange] = []
    at = 0
    while at < model.blocks:
        if counts[at] > poorest:
            at += 1
            continue
        window = _largest(model, at, room)
        if window is None:
            at += 1
            continue
        found.append(window)
        at = window.end
    return found


def _largest(model: Candidate, at: int, room: int) -> LayerRange | None:
    """The largest slice that fits from this layer on; at the model's end it reaches back as well."""
    start, end = at, at
    while end < model.blocks and model.need(LayerRange(at, end + 1)) <= room:
        end += 1
    if end == at:
        return None
    while end == model.blocks and start > 0 and model.need(LayerRange(start - 1, end)) <= room:
        start -= 1
    return LayerRange(start, end)


def _worth(counts: Sequence[int], window: LayerRange) -> tuple[int, ...]:
    """How many of its layers have no host, one, two and so on: the larger, the more it is lacked."""
    having = Counter(counts[window.start : window.end])
    return tuple(having[hosts] for hosts in range(max(counts) + 1))


def _may_move(held: Picked, coverage: Coverage, own: PeerId, now: float, changed: float) -> bool:
    """Whether it is this node's turn to give up a slice, and every layer of it has another host that stays.

    `changed` is when that became of interest.
    """
    offers = {*coverage.offers, (own, held.layers)}
    if not _is_free(own, held.layers, offers):
        return False
    rivals, changed = {own}, max(changed, _last_change(coverage, held.layers))
    for peer, layers in coverage.offers:
        if _overlap(layers, held.layers):
            changed = max(changed, _last_change(coverage, layers))
            if _is_free(peer, layers, offers):
                rivals.add(peer)
    rounds, into = divmod(now - changed, ROUND_SECONDS)
    # The first round is for all to see what changed.
    return rounds >= 1 and (rounds - 1) % len(rivals) == sorted(rivals).index(own) and into < MOVE_SECONDS


def _last_change(coverage: Coverage, layers: LayerRange) -> float:
    return max(coverage.changed[layers.start : layers.end])


def _is_free(peer: PeerId, layers: LayerRange, offers: set[tuple[PeerId, LayerRange]]) -> bool:
    """Whether each of a peer's layers has another host."""
    others = [theirs for other, theirs in offers if other != peer and _overlap(theirs, layers)]
    return all(
        any(theirs.start <= layer < theirs.end for theirs in others)
        for layer in range(layers.start, layers.end)
    )


def _overlap(one: LayerRange, other: LayerRange) -> bool:
    return one.start < other.end and other.start < one.end


def _is_worth_it(
    found: _Found, held: Picked, coverage: Mapping[str, Coverage], beside: Sequence[Picked]
) -> bool:
    """Whether a layer is won that nobody hosts, or that has at least two hosts fewer than any that is given up."""
    counts = _counts(coverage[held.cid], held.cid, beside)
    given_up = 1 + min(counts[held.layers.start : held.layers.end])
    return found.level == 0 or found.level + 2 <= given_up


def _is_news(found: _Found, coverage: Mapping[str, Coverage], now: float) -> bool:
    """Whether what is lacked has been so for less than a round: it may be on its way already, or come back."""
    return now - _last_change(coverage[found.cid], found.layers) < ROUND_SECONDS


def _need(models: Mapping[str, Candidate], picked: Sequence[Picked]) -> int:
    return sum(models[held.cid].need(held.layers) for held in picked)
