"""What this node shall be: its config file, what its owner changed since by hand, and what it chose itself."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

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
from intelnav.chain.hop import HopService
from intelnav.chain.served import Running
from intelnav.choice import Choice
from intelnav.config import NodeConfig, SliceConfig
from intelnav.config_file import ConfigFile
from intelnav.controller.kept import Kept
from intelnav.controller.loop import Controller
from intelnav.controller.plan import changes
from intelnav.controller.shelf import Shelf
from intelnav.controller.state import Desired, Plan, SliceName
from intelnav.domain.errors import ConfigError
from intelnav.domain.slice import LayerRange
from intelnav.events import Events
from intelnav.joining import joinable
from intelnav.wanted import check, name_of, wanted_slices

log = logging.getLogger(__name__)


class Steering:
    """Tells the controller what shall be, and what counts to whoever asks. Implements `Control`.

    `hops` is set before the first question comes. `stopping` is set once nothing shall be any more.
    """

    hops: HopService

    def __init__(
        self,
        file: ConfigFile,
        shelf: Shelf,
        controller: Controller,
        events: Events,
        apply: Callable[[NodeConfig], None],
        choice: Choice,
    ) -> None:
        """`apply` takes over what of a new config is not about slices; `choice` picks them with `slices: auto`."""
        self.stopping = False
        self._file = file
        self._shelf = shelf
        self._controller = controller
        self._events = events
        self._apply = apply
        self._choice = choice
        self._left: set[SliceName] = set()
        self._joined: dict[SliceName, SliceConfig] = {}
        self._reading = anyio.Lock()

    async def run(self) -> None:
        """Follow the file and the choice until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._choice.run, self.settle)
            while True:
                await self._file.changed()
                await self.look()

    async def look(self) -> None:
        """Read the file again, now; what is wrong with it goes to the log, the events and the status."""
        try:
            await self.reload()
        except ConfigError:
            # It was told where it was raised.
            return

    def stop(self, grace: float) -> None:
        """Nothing shall be any more; what is under way has `grace` seconds to end."""
        self.stopping = True
        self._controller.want(Desired(self._file.generation, (), grace))

    # Control

    async def plan(self, text: str | None, style: Literal["yaml", "toml"]) -> PlanReport:
        """See `Control`."""
        before = self._controller.desired
        if text is None:
            return self._report(self._controller.plan(before), before, before, self._file.restart)
        config, restart = await self._file.parsed(text, style)
        await check(config, self._shelf)
        after = self._desired(config, self._hosted_by(config), self._file.generation + 1)
        return self._report(self._controller.plan(after), before, after, restart)

    def hosting(self) -> list[Hosted]:
        """See `Control`."""
        wanted = [slice.name for slice in self._controller.desired.slices if slice.hosted]
        going = [name for name, kept in self._controller.slices.items() if kept.draining is not None]
        return [self._hosting(name) for name in dict.fromkeys((*wanted, *going))]

    async def leave(self, model: str, layers: LayerRange) -> Override:
        """See `Control`."""
        name = self._named(model, layers, self._all_hosted())
        if name is None:
            raise UnknownSlice(f"layers {layers} of {model} are not hosted here; see `intelnav hosting`")
        if name in self._left:
            raise Conflict(f"layers {layers} of {model} are left already, until the config is next loaded")
        if self._joined.pop(name, None) is None:
            self._left.add(name)
        self._override("leave", name)
        return self._overridden(name)

    async def join(self, model: str, layers: LayerRange) -> Override:
        """See `Control`."""
        hosted = self._all_hosted()
        name = self._named(model, layers, hosted)
        if name is not None and name not in self._left:
            raise Conflict(f"layers {layers} of {model} are hosted already")
        if name is not None:
            self._left.discard(name)
        else:
            folder = self._file.path.absolute().parent if self._file.path is not None else None
            others = [each for each in hosted if name_of(each) not in self._left]
            reference = self._reference(model)
            settings = await joinable(reference, layers, folder, self._file.config, others, self._shelf)
            name = name_of(settings)
            self._joined[name] = settings
        self._override("join", name)
        return self._overridden(name)

    async def reload(self) -> Reloaded:
        """See `Control`."""
        async with self._reading:
            known = self._file.error
            try:
                changed = await self._file.load(lambda config: check(config, self._shelf))
            except ConfigError as error:
                if str(error) != known:
                    log.error("the config is wrong, and the last good one goes on: %s", error)
                    self._events.add("config", f"not taken: {error}")
                raise
            config, generation = self._file.config, self._file.generation
            self._left.clear()
            self._joined.clear()
            self._apply(config)
            self.settle()
        waiting = f"; at a restart only: {', '.join(self._file.restart)}" if self._file.restart else ""
        log.info("config %d is taken%s", generation, waiting)
        self._events.add("config", f"config {generation} is taken{waiting}")
        return Reloaded(generation, changed)

    def events(self, after: int) -> Sequence[Event]:
        """See `Control`."""
        return self._events.after(after)

    async def next_event(self, after: int) -> None:
        """See `Control`."""
        await self._events.next(after)

    def overrides(self) -> list[dict[str, Any]]:
        """What `leave` and `join` changed, as `/status` shows it."""
        changed = [("leave", name) for name in self._left] + [("join", name) for name in self._joined]
        return [
            {"action": action, "model": self._called(name), "layers": str(name.layers)}
            for action, name in changed
        ]

    def settle(self) -> None:
        """Tell the controller what shall be now."""
        if self.stopping:
            return
        hosted = [each for each in self._all_hosted() if name_of(each) not in self._left]
        self._controller.want(self._desired(self._file.config, hosted, self._file.generation))

    def _desired(self, config: NodeConfig, hosted: Sequence[SliceConfig], generation: int) -> Desired:
        return Desired(generation, wanted_slices(config, hosted), config.limits.grace_seconds)

    def _hosted_by(self, config: NodeConfig) -> tuple[SliceConfig, ...]:
        return config.slices if config.auto is None else self._choice.slices

    def _all_hosted(self) -> list[SliceConfig]:
        """What is hosted for others, and what would be if it had not been left."""
        return [*self._hosted_by(self._file.config), *self._joined.values()]

    def _override(self, action: str, name: SliceName) -> None:
        log.info("%s: %s", action, name)
        message = f"{action}, until the config is next loaded"
        self._events.add("config", message, model=self._called(name), layers=str(name.layers))
        self.settle()

    def _overridden(self, name: SliceName) -> Override:
        kept, view = self._controller.slices.get(name), self._controller.views.get(name)
        in_use = kept.engine.in_use if kept is not None and kept.engine is not None else 0
        leaving = all(slice.name != name for slice in self._controller.desired.slices)
        state = view.state if view is not None else "pending"
        if leaving:
            state = "draining" if kept is not None and kept.engine is not None else "stopped"
        return Override(self._called(name), str(name.layers), state, in_use)

    def _named(self, model: str, layers: LayerRange, among: Sequence[SliceConfig]) -> SliceName | None:
        """Which of these slices a user means."""
        names = [name_of(each) for each in among if each.layers == layers]
        return next((name for name in names if model in self._words(name)), None)

    def _reference(self, model: str) -> str:
        """What a user calls a model by a word that only this node has for it, as the config would."""
        for name, kept in self._controller.slices.items():
            if model == kept.called:
                return str(name.model)
        return model

    def _words(self, name: SliceName) -> set[str]:
        """What a slice's model may be called."""
        kept = self._controller.slices.get(name, Kept(name))
        words = {str(name.model), kept.called, *self._shelf.names_of(name.model)}
        return words if kept.model is None else words | {kept.model.cid}

    def _called(self, name: SliceName) -> str:
        kept = self._controller.slices.get(name, Kept(name))
        return kept.called if kept.model is not None else self._shelf.title_of(name.model) or kept.called

    def _hosting(self, name: SliceName) -> Hosted:
        kept, view = self._controller.slices.get(name, Kept(name)), self._controller.views.get(name)
        engine = kept.engine
        return Hosted(
            kept.called,
            kept.model.cid if kept.model is not None else None,
            str(kept.layers),
            view.state if view is not None else "pending",
            engine.in_use if engine is not None else 0,
            engine.info.sessions if engine is not None else 0,
            tuple(_chain(each) for each in self.hops.running(engine)) if engine is not None else (),
        )

    def _report(self, plan: Plan, before: Desired, after: Desired, restart: tuple[str, ...]) -> PlanReport:
        return PlanReport(
            tuple(
                PlannedAction(
                    type(action).__name__.lower(),
                    self._called(action.name),
                    _layers(action.name),
                    action.reason,
                )
                for action in plan.actions
            ),
            tuple(
                Change(change.change, self._called(change.name), _layers(change.name))
                for change in changes(before, after)
            ),
            restart,
        )


def _layers(name: SliceName) -> str | None:
    return str(name.layers) if name.layers is not None else None


def _chain(running: Running) -> RunningChain:
    return RunningChain(
        running.session[:4].hex(),
        str(running.entry),
        str(running.prev),
        str(running.next) if running.next is not None else None,
        round(running.seconds, 1),
        running.tokens,
    )
