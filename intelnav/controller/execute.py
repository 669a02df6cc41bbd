"""Carries out what was planned, without a decision of its own; what comes of it is there to be observed."""

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
from anyio import CancelScope, to_thread
from anyio.abc import TaskGroup

from intelnav.controller.files import SliceFile, mark_of, sound, still_sound
from intelnav.controller.kept import Kept
from intelnav.controller.plan import after_failure, after_success, retry_at
from intelnav.controller.shelf import Model, Shelf
from intelnav.controller.state import (
    Action,
    Announce,
    Bring,
    Cancel,
    Doing,
    Drain,
    Forget,
    Load,
    Resume,
    SliceName,
    Unload,
    Withdraw,
)
from intelnav.domain.errors import ContentError, EngineError, IntelNavError
from intelnav.domain.job import JobProgress
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceEngine
from intelnav.engine.process import SliceProcess, load_slice
from intelnav.net.progress import Progress

log = logging.getLogger(__name__)

# A worker that owes an answer for so long hangs: a decode takes far less. One that loads also reads its file.
STUCK_SECONDS = 120.0
LOAD_BYTES_PER_SECOND = 8 * 2**20
CHECK_SECONDS = 5.0


class Executor:
    """The slices of one node, and what is done to them in `tasks`."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        changed: Callable[[], None],
        announced: Callable[[], None],
        ending: Callable[[SliceEngine, str], None],
    ) -> None:
        """`changed` is called whenever anything that is observed did, `announced` when another set of slices is.

        `ending` ends the sessions that run in a worker, before it is.
        """
        self.slices: dict[SliceName, Kept] = {}
        self._shelf = shelf
        self._changed = changed
        self._announced = announced
        self._ending = ending

    def start(self, action: Action, tasks: TaskGroup) -> None:
        """Begin an action; it has its effect, or shows in what is observed as under way, when this returns."""
        kept = self.slices.setdefault(action.name, Kept(action.name))
        log.debug("%s: %s (%s)", type(action).__name__.lower(), kept, action.reason)
        match action:
            case Bring():
                # Before anything else makes room for itself.
                self._shelf.wanted |= self._bytes_of(kept)
                self._begin(kept, "finding", self._bring, tasks)
            case Load(room=room):
                kept.room = room
                self._begin(kept, "loading", self._load, tasks)
            case Announce():
                kept.announced = True
                self._announced()
            case Withdraw():
                kept.announced = False
                self._announced()
            case Drain():
                kept.draining = time.monotonic()
            case Resume():
                kept.draining = None
            case Unload(reason=reason):
                kept.doing = "unloading"
                if kept.engine is not None:
                    self._ending(kept.engine, reason)
                kept.work.cancel()
            case Cancel():
                kept.doing = "cancelling"
                kept.work.cancel()
            case Forget():
                del self.slices[kept.name]
                self._let_go(kept)
        self._changed()

    async def look(self) -> None:
        """Hold the files against what they were when their bytes were last known to be sound."""
        for kept in list(self.slices.values()):
            file = kept.file
            if file is None or kept.model is None or kept.layers is None or kept.doing is not None:
                continue
            try:
                if await to_thread.run_sync(mark_of, file.path) == file.mark:
                    continue
                log.info("%s was touched, and is looked at again", file.path)
                found = await to_thread.run_sync(
                    still_sound, self._shelf.store, kept.model, kept.layers, file, abandon_on_cancel=True
                )
            except FileNotFoundError:
                # A worker that has it open goes on, unless what it has was found to be damaged.
                fault = self._shelf.store.fault_of(kept.model.cid, kept.layers)
                self._lost_file(kept, file, fault or f"{file.path} is gone", changed=fault is not None)
            except IntelNavError as error:
                self._lost_file(kept, file, str(error), changed=True)
            except OSError as error:
                # It cannot be told now.
                log.warning("%s: %s", kept, error)
            else:
                if kept.file is file:
                    kept.file = found

    def _begin(
        self, kept: Kept, doing: Doing, work: Callable[[Kept], Awaitable[None]], tasks: TaskGroup
    ) -> None:
        kept.doing, kept.work = doing, CancelScope()
        tasks.start_soon(self._run, kept, work)

    async def _run(self, kept: Kept, work: Callable[[Kept], Awaitable[None]]) -> None:
        """Do the work, and note what goes wrong with it."""
        try:
            await work(kept)
        except (IntelNavError, OSError) as error:
            self._fail(kept, str(error))
        finally:
            kept.doing = None
            self._changed()

    def _fail(self, kept: Kept, reason: str) -> None:
        kept.failure = after_failure(kept.failure, reason, time.monotonic())
        pause = retry_at(kept.failure) - kept.failure.at
        log.warning("%s failed, next try in %g s: %s", kept, pause, reason)

    async def _bring(self, kept: Kept) -> None:
        def note(doing: Doing, progress: Progress | JobProgress) -> None:
            if kept.doing != "cancelling":
                kept.doing, kept.progress = doing, progress
                self._changed()

        with kept.work:
            kept.model = await self._shelf.find(kept.name.model, note)
            assert kept.layers is not None
            try:
                kept.file = await self._here(kept.model, kept.layers, note)
            except ContentError as error:
                # What was damaged is set aside: whatever is sound of it need not be fetched again.
                log.warning("%s: %s", kept, error)
                kept.file = await self._here(kept.model, kept.layers, note)

    async def _here(
        self, model: Model, layers: LayerRange, note: Callable[[Doing, Progress | JobProgress], None]
    ) -> SliceFile:
        path = await self._shelf.put(model, layers, note)
        store = self._shelf.store
        return await to_thread.run_sync(sound, store, model, layers, path, abandon_on_cancel=True)

    async def _load(self, kept: Kept) -> None:
        """Start a worker and offer it until it dies, hangs or is to be ended."""
        file = kept.file
        assert file is not None
        async with AsyncExitStack() as stack:
            with kept.work:
                try:
                    engine = await self._started(stack, kept, file)
                except IntelNavError as error:
                    if isinstance(error, ContentError) or not await to_thread.run_sync(file.path.exists):
                        # Not what it was when it came: it is looked at again, and brought again if need be.
                        kept.file = None
                    raise
                kept.engine, kept.since, kept.doing = engine, time.monotonic(), None
                log.info("%s are loaded", kept)
                self._changed()
                await _lost(engine)
            if kept.engine is not None:
                self._ended(kept, kept.engine)
        log.info("the worker of %s has ended", kept)

    async def _started(self, stack: AsyncExitStack, kept: Kept, file: SliceFile) -> SliceProcess:
        seconds = STUCK_SECONDS + file.size / LOAD_BYTES_PER_SECOND
        try:
            with anyio.fail_after(seconds):
                engine = await stack.enter_async_context(load_slice(file.spec(kept.room)))
        except TimeoutError:
            raise EngineError(f"the worker did not load the slice within {seconds:.0f} s") from None
        # What lies on a GPU takes nothing of the main memory.
        on_gpu = "/cpu/" not in engine.info.engine_class and kept.room.gpu_layers < 0
        kept.memory = 0 if on_gpu else file.need(kept.room)
        return engine

    def _ended(self, kept: Kept, engine: SliceProcess) -> None:
        """The worker serves no more, and what is left of it is ended."""
        kept.failure = after_success(kept.failure, kept.since, time.monotonic())
        if engine.death:
            self._fail(kept, engine.death)
        kept.engine, kept.draining, kept.doing = None, None, "unloading"
        self._changed()

    def _lost_file(self, kept: Kept, file: SliceFile, reason: str, *, changed: bool = False) -> None:
        if kept.file is not file:
            return
        log.warning("%s: %s", kept, reason)
        kept.file = None
        if changed and kept.engine is not None:
            # It reads what is there now.
            kept.engine.fail(reason)
        self._changed()

    def _let_go(self, kept: Kept) -> None:
        """The bytes of a slice may go, unless another name stands for the same ones."""
        self._shelf.wanted -= self._bytes_of(kept).difference(*map(self._bytes_of, self.slices.values()))

    def _bytes_of(self, kept: Kept) -> set[tuple[str, LayerRange]]:
        """What a slice takes of the store, as far as that is known."""
        cid = kept.model.cid if kept.model is not None else self._shelf.cid_of(kept.name.model)
        return {(cid, kept.layers)} if cid is not None and kept.layers is not None else set()


async def _lost(engine: SliceProcess) -> None:
    """Return once the worker is dead, or hangs and is given up."""
    while not engine.died.is_set():
        with anyio.move_on_after(CHECK_SECONDS):
            await engine.died.wait()
        if engine.stuck_for > STUCK_SECONDS:
            engine.fail(f"the worker has owed an answer for more than {STUCK_SECONDS:g} s")
