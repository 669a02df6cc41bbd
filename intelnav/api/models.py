"""The models on this machine, over HTTP: listed for all, changed only over the control socket."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from intelnav.api.errors import ApiError
from intelnav.api.jobs import Job, Work, refusal
from intelnav.api.local import check_local
from intelnav.api.replies import Json
from intelnav.domain.errors import IntelNavError
from intelnav.domain.job import JobProgress
from intelnav.domain.slice import LayerRange

MAX_WHAT = 4096


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that is here or can be had, as `GET /models` shows it.

    `where` is "local" if this node knows it: `file` is then its whole GGUF, if there is one, `held` the slices in the
    store, and `held_bytes` what the store has of it, where a file of the user's own counts nothing. `size_bytes` is
    that of the whole model. `hostable_layers` estimates how many layers at most fit the memory of this machine at
    once. What is not known is None.
    """

    name: str
    title: str
    where: Literal["local", "catalog"]
    architecture: str
    blocks: int
    quantisation: str
    cid: str | None = None
    size_bytes: int | None = None
    file: str | None = None
    held: tuple[str, ...] = ()
    held_bytes: int = 0
    hostable_layers: int | None = None
    origin: str | None = None
    license: str | None = None
    cuts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """All models, the local ones first, and the disk that the store takes; `max_bytes` None is no limit."""

    models: tuple[ListedModel, ...]
    used_bytes: int
    max_bytes: int | None


@dataclass(frozen=True, slots=True)
class Damage:
    """What `verify` found: which part of which model is not what it must be, and what became of it."""

    cid: str
    part: str
    reason: str


class Library(Protocol):
    """The node's models.

    Methods raise IntelNavError (ConfigError for what is not there, Conflict for what is in use) and OSError.
    """

    async def listing(self) -> Listing:
        """What is here and what can be had."""

    async def bring(self, what: str, progress: JobProgress) -> ListedModel:
        """Import a file (by its absolute path), a URL, `hf://OWNER/REPO/FILE` or a catalog name."""

    async def remove(self, cid: str, layers: LayerRange | None) -> int:
        """Remove one slice of a model, or all of it; returns the number of bytes freed."""

    async def verify(self, cid: str | None, progress: JobProgress) -> tuple[Damage, ...]:
        """Hash again what is here of a model, or of all."""


def model_routes(library: Library) -> list[Route]:
    """`/models` and what lies under it."""

    async def listed(_: Request) -> Response:
        try:
            return JSONResponse(asdict(await library.listing()))
        except (IntelNavError, OSError) as error:
            return refusal(error).response()

    async def remove(request: Request) -> Response:
        try:
            check_local(request, "Models are changed")
            freed = await library.remove(request.path_params["cid"], _layers(request))
        except (IntelNavError, OSError) as error:
            return refusal(error).response()
        return JSONResponse({"freed_bytes": freed})

    def bring(request: Request, body: bytes) -> Work:
        check_local(request, "Models are changed")
        what = _what(body)

        async def work(progress: JobProgress) -> Json:
            return asdict(await library.bring(what, progress))

        return work

    def verify(request: Request, _: bytes) -> Work:
        check_local(request, "Models are changed")
        cid = request.path_params.get("cid")

        async def work(progress: JobProgress) -> Json:
            return {"damaged": [asdict(damage) for damage in await library.verify(cid, progress)]}

        return work

    return [
        Route("/models", listed),
        Route("/models/import", Job(bring), methods=["POST"]),
        Route("/models/verify", Job(verify), methods=["POST"]),
        Route("/models/{cid}/verify", Job(verify), methods=["POST"]),
        Route("/models/{cid}", remove, methods=["DELETE"]),
        Route("/models/{cid}/{layers}", remove, methods=["DELETE"]),
    ]


def _what(body: bytes) -> str:
    try:
        what = json.loads(body)["what"]
    except (ValueError, LookupError, TypeError, RecursionError):
        what = None
    if not isinstance(what, str) or not 0 < len(what) <= MAX_WHAT or not what.isprintable():
        reason = (
            'The body must be {"what": "an absolute path, a URL, hf://OWNER/REPO/FILE or a catalog name"}'
        )
        raise ApiError(400, "invalid_value", reason, param="what")
    return what


def _layers(request: Request) -> LayerRange | None:
    text = request.path_params.get("layers")
    try:
        return LayerRange.parse(text) if text is not None else None
    except ValueError as error:
        raise ApiError(400, "invalid_value", str(error), param="layers") from None
