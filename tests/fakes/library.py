"""A library that holds no models: what it says is set, and its work can be held or broken."""

from dataclasses import dataclass, field

import anyio

from intelnav.api.models import Damage, ListedModel, Listing
from intelnav.domain.errors import ConfigError
from intelnav.domain.job import JobProgress
from intelnav.domain.slice import LayerRange

CID = "b3-" + "a" * 52
LOCAL = ListedModel(
    name="tiny",
    title="Tiny [llama]",
    where="local",
    architecture="llama",
    blocks=6,
    quantisation="F32",
    cid=CID,
    size_bytes=1_234_567,
    file="/models/tiny.gguf",
    held=("0..2", "2..4"),
    held_bytes=500_000,
    hostable_layers=6,
)
OFFERED = ListedModel(
    name="big",
    title="Big",
    where="catalog",
    architecture="qwen2",
    blocks=28,
    quantisation="Q4_K_M",
    origin="hf://owner/repo/big.gguf",
    hostable_layers=10,
    license="MIT",
    cuts=(7, 14, 21),
)


@dataclass
class ScriptedLibrary:
    """Its work takes three steps of ten bytes, and goes on from each when `steps` lets it.

    `fail` is raised at the end of the work, or instead of any other answer.
    """

    models: tuple[ListedModel, ...] = (LOCAL, OFFERED)
    damaged: tuple[Damage, ...] = ()
    fail: Exception | None = None
    steps: list[anyio.Event] = field(default_factory=list)
    asked: list[tuple[object, ...]] = field(default_factory=list)
    at_work: int = 0
    cancelled: anyio.Event = field(default_factory=anyio.Event)

    async def listing(self) -> Listing:
        return Listing(self.models, used_bytes=500_000, max_bytes=2_000_000_000)

    async def bring(self, what: str, progress: JobProgress) -> ListedModel:
        self.asked.append(("bring", what))
        await self._work("downloading", progress)
        return LOCAL

    async def remove(self, cid: str, layers: LayerRange | None) -> int:
        self.asked.append(("remove", cid, layers))
        if self.fail is not None:
            raise self.fail
        if cid != CID:
            raise ConfigError(f"no model {cid} is here")
        return 500_000

    async def verify(self, cid: str | None, progress: JobProgress) -> tuple[Damage, ...]:
        self.asked.append(("verify", cid))
        await self._work("verifying", progress)
        return self.damaged

    async def _work(self, stage: str, progress: JobProgress) -> None:
        self.at_work += 1
        try:
            progress.enter(stage, total=30)
            for step in self.steps:
                await step.wait()
                progress.done += 10
            if self.fail is not None:
                raise self.fail
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        finally:
            self.at_work -= 1
