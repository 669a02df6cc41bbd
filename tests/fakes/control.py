"""A node's control that steers nothing: what it says is set, and what it was told is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import anyio

from intelnav.api.control import (
    Change,
    Conflict,
    Event,
    Hosted,
    Override,
    PlannedAction,
    PlanReport,
    Reloaded,
    RunningChain,
    UnknownSlice,
)
from intelnav.domain.slice import LayerRange

CID = "b3-" + "a" * 52
ENTRY, BEFORE = (letter * 51 + "q" for letter in "de")

CHAIN = RunningChain("0badcafe", ENTRY, BEFORE, None, 12.5, 340)
HELD = Hosted("tiny", CID, "2..4", "ready", 1, 8, (CHAIN,))
ARRIVING = Hosted("big", None, "7..14", "pending", 0, 8, ())
PLANNED = PlanReport(
    actions=(
        PlannedAction("withdraw", "tiny", "2..4", "the config has it no more"),
        PlannedAction("load", "[big]", None, ""),
    ),
    changes=(
        Change("keep", "tiny", "0..2"),
        Change("remove", "tiny", "2..4"),
        Change("reload", "tiny", "4..6"),
        Change("add", "[big]", None),
    ),
    restart=("data_dir", "network.listen"),
)
EVENTS = (
    Event(3, 1767323045.25, "config", "loaded"),
    Event(4, 1767323046.0, "slice", "a worker runs", model="tiny", layers="2..4", state="ready"),
)


@dataclass
class ScriptedControl:
    """Slices of `hosted` can be left; `fail` is raised instead of any answer. `tell` and `stop` wake who follows.

    `gone` is set when a follower goes away.
    """

    report: PlanReport = PLANNED
    hosted: list[Hosted] = field(default_factory=lambda: [HELD, ARRIVING])
    kept: list[Event] = field(default_factory=lambda: list(EVENTS))
    fail: Exception | None = None
    asked: list[tuple[object, ...]] = field(default_factory=list)
    gone: anyio.Event = field(default_factory=anyio.Event)
    _came: anyio.Event = field(default_factory=anyio.Event)
    _news: anyio.Event = field(default_factory=anyio.Event)

    async def plan(self, text: str | None, style: Literal["yaml", "toml"]) -> PlanReport:
        self._note("plan", text, style)
        return self.report

    def hosting(self) -> list[Hosted]:
        return self.hosted

    async def leave(self, model: str, layers: LayerRange) -> Override:
        self._note("leave", model, layers)
        for held in self.hosted:
            if model in (held.model, held.cid) and held.layers == str(layers):
                return Override(held.model, held.layers, "draining", held.in_use)
        raise UnknownSlice(f"layers {layers} of {model} are not hosted here")

    async def join(self, model: str, layers: LayerRange) -> Override:
        self._note("join", model, layers)
        if any(model in (held.model, held.cid) and held.layers == str(layers) for held in self.hosted):
            raise Conflict(f"layers {layers} of {model} are hosted already")
        return Override(model, str(layers), "pending", 0)

    async def reload(self) -> Reloaded:
        self._note("reload")
        return Reloaded(4, True)

    def events(self, after: int) -> Sequence[Event]:
        return [event for event in self.kept if event.seq > after]

    async def next_event(self, after: int) -> None:
        self._came.set()
        try:
            await self._news.wait()
        except anyio.get_cancelled_exc_class():
            self.gone.set()
            raise

    def tell(self, event: Event) -> None:
        self.kept.append(event)
        self.stop()

    def stop(self) -> None:
        """Wake who follows; without an event told before, this is how a node's end looks."""
        self._news.set()
        self._news = anyio.Event()

    async def wait_followed(self) -> None:
        """Return once somebody waits for the next event, anew since the last call."""
        with anyio.fail_after(10):
            await self._came.wait()
        self._came = anyio.Event()

    def _note(self, *what: object) -> None:
        self.asked.append(what)
        if self.fail is not None:
            raise self.fail
