"""Endpoints whose work takes a while: events tell how far it is. A client that goes away cancels the work."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from intelnav.api.completions import STREAM_HEADERS, ClientGone, cancel_when_gone, read_body
from intelnav.api.errors import ApiError
from intelnav.api.replies import Json, event
from intelnav.domain.errors import ContentError, IntelNavError
from intelnav.domain.job import JobProgress

TICK_SECONDS = 0.2

Work = Callable[[JobProgress], Awaitable[Json]]
Prepare = Callable[[Request, bytes], Work]


def refusal(error: IntelNavError | OSError) -> ApiError:
    """What went wrong with a model here, as an answer."""
    if isinstance(error, OSError):
        reason = f"{error.filename or 'the disk'}: {error.strerror or error}"
        return ApiError(507, "storage", reason)
    if isinstance(error, ContentError):
        return ApiError(422, error.code, str(error))
    if error.code == "store_full":
        return ApiError(507, error.code, str(error))
    return ApiError.of(error)


class Job:
    """One endpoint, as an ASGI application; `prepare` reads the request, and what it returns is run.

    Every tick sends `{"stage", "done", "total"}`, the end `{"result": ...}` or an error, as server-sent events. What
    fails before the first tick is a plain refusal.
    """

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = await read_body(receive)
            work = self._prepare(Request(scope), body)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        except ClientGone:
            return
        async with anyio.create_task_group() as watch:
            watch.start_soon(cancel_when_gone, receive, watch.cancel_scope)
            await _respond(work, scope, receive, send)
            watch.cancel_scope.cancel()


async def _respond(work: Work, scope: Scope, receive: Receive, send: Send) -> None:
    progress, ended = JobProgress(), anyio.Event()
    outcome: Json | ApiError | None = None
    streaming = False

    async def run() -> None:
        nonlocal outcome
        try:
            outcome = {"result": await work(progress)}
        except (IntelNavError, OSError) as error:
            outcome = refusal(error)
        finally:
            ended.set()

    async def put(data: Any) -> None:
        nonlocal streaming
        if not streaming:
            streaming = True
            await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        await send({"type": "http.response.body", "body": event(data), "more_body": True})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        while not ended.is_set():
            with anyio.move_on_after(TICK_SECONDS):
                await ended.wait()
            if not ended.is_set():
                await put({"stage": progress.stage, "done": progress.done, "total": progress.total})
    if isinstance(outcome, ApiError) and not streaming:
        await outcome.response()(scope, receive, send)
        return
    await put(outcome.body if isinstance(outcome, ApiError) else outcome)
    if not isinstance(outcome, ApiError):
        await put("[DONE]")
    await send({"type": "http.response.body", "body": b"", "more_body": False})
