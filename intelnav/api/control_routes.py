"""Control of the node over HTTP, and on the control socket alone, but for what it hosts."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal

import anyio
from pydantic import AfterValidator, Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from intelnav.api.bodies import StrictBody, parse
from intelnav.api.completions import STREAM_HEADERS, ClientGone, cancel_when_gone, read_body
from intelnav.api.control import Conflict, Control, UnknownSlice
from intelnav.api.errors import ApiError
from intelnav.api.local import check_local
from intelnav.api.replies import Json, event
from intelnav.domain.errors import ConfigError, IntelNavError
from intelnav.domain.slice import LayerRange

MAX_MODEL = 4096


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("write it without control characters")
    return text


def _layers(text: str) -> str:
    return str(LayerRange.parse(text))


class _PlanBody(StrictBody):
    config: str | None = None
    format: Literal["yaml", "toml"] = "yaml"

    @model_validator(mode="after")
    def _complete(self) -> "_PlanBody":
        if self.config is None and "format" in self.model_fields_set:
            raise ValueError("format says how config is written: send both")
        return self


class _SliceBody(StrictBody):
    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL), AfterValidator(_printable)]
    layers: Annotated[str, Field(max_length=20), AfterValidator(_layers)]


class _NoBody(StrictBody):
    """Nothing is to be said."""


def control_routes(control: Control) -> list[Route]:
    """`/plan`, `/hosting`, `/leave`, `/join`, `/reload` and `/events`; over TCP, all but `/hosting` answer 403."""

    async def plan(body: bytes) -> Json:
        asked = parse(_PlanBody, body or b"{}")
        return asdict(await control.plan(asked.config, asked.format))

    async def leave(body: bytes) -> Json:
        asked = parse(_SliceBody, body)
        return asdict(await control.leave(asked.model, LayerRange.parse(asked.layers)))

    async def join(body: bytes) -> Json:
        asked = parse(_SliceBody, body)
        return asdict(await control.join(asked.model, LayerRange.parse(asked.layers)))

    async def reload(body: bytes) -> Json:
        parse(_NoBody, body or b"{}")
        return asdict(await control.reload())

    async def hosting(_: Request) -> Response:
        return JSONResponse({"hosting": [asdict(each) for each in control.hosting()]})

    return [
        Route("/plan", _Act(plan), methods=["POST"]),
        Route("/leave", _Act(leave), methods=["POST"]),
        Route("/join", _Act(join), methods=["POST"]),
        Route("/reload", _Act(reload), methods=["POST"]),
        Route("/hosting", hosting),
        Route("/events", _Events(control), methods=["GET"]),
    ]


class _Act:
    """An endpoint of the control socket, as an ASGI application. A client that goes away ends nothing that it began."""

    def __init__(self, act: Callable[[bytes], Awaitable[Json]]) -> None:
        self._act = act

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = await read_body(receive)
            check_local(Request(scope), "A node is controlled")
            answer: Response = JSONResponse(await self._act(body))
        except IntelNavError as error:
            answer = _refusal(error).response()
        except ClientGone:
            return
        await answer(scope, receive, send)


def _refusal(error: IntelNavError) -> ApiError:
    if isinstance(error, UnknownSlice):
        return ApiError(404, error.code, str(error), param="model")
    if isinstance(error, ConfigError) and not isinstance(error, Conflict):
        return ApiError(400, error.code, str(error))
    return ApiError.of(error)


class _Events:
    """What happened and what happens, as server-sent events until the client goes away or the node stops."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope)
        try:
            check_local(request, "Events are told")
            after, follow = _span(request)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        async with anyio.create_task_group() as watch:
            watch.start_soon(cancel_when_gone, receive, watch.cancel_scope)
            await self._tell(after, follow, send)
            watch.cancel_scope.cancel()

    async def _tell(self, after: int, follow: bool, send: Send) -> None:
        async def put(data: Json | str) -> None:
            await send({"type": "http.response.body", "body": event(data), "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        # Sent at once: the headers of a stream without events would stay in the server.
        await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
        while True:
            told = self._control.events(after)
            if follow and not told:
                await self._control.next_event(after)
                told = self._control.events(after)
            if not told:
                break
            for each in told:
                await put(each.as_json())
                after = each.seq
        await put("[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _span(request: Request) -> tuple[int, bool]:
    """The number after which events are told, and whether those to come are, too; ApiError 400."""
    given: dict[str, Any] = dict(request.query_params)
    after, follow = given.pop("after", "0"), given.pop("follow", "1")
    for name in given:
        raise ApiError(400, "unsupported_parameter", f"{name[:40]!r} is no parameter here", param=name[:40])
    if not (after.isascii() and after.isdecimal() and len(after) < 16):
        raise ApiError(400, "invalid_value", "after must be the number of an event", param="after")
    if follow not in ("0", "1"):
        raise ApiError(400, "invalid_value", "follow must be 0 or 1", param="follow")
    return int(after), follow == "1"
