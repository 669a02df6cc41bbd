"""The two completion endpoints. A client that goes away takes its generation with it, at once."""

from typing import Generic

import anyio
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from intelnav.api.bodies import parse
from intelnav.api.errors import ApiError
from intelnav.api.openai import Body, ChatBody
from intelnav.api.replies import Json, Reply, event, report
from intelnav.chain.interface import Answer, Completer, Ending
from intelnav.domain.errors import IntelNavError

MAX_BODY_BYTES = 1 << 20
# An oversized body is read and dropped up to here, so that a client still sending gets to read the refusal.
DRAIN_BYTES = 8 * MAX_BODY_BYTES
BODY_SECONDS = 30

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class ClientGone(Exception):
    """The connection closed before the request was complete."""


async def read_body(receive: Receive) -> bytes:
    """The request's body; raises ApiError 413 if it is too long, 408 if it is too slow, or ClientGone."""
    body, size, more = bytearray(), 0, True
    try:
        with anyio.fail_after(BODY_SECONDS):
            while more and size <= DRAIN_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                size += len(message["body"])
                more = message["more_body"]
                if size <= MAX_BODY_BYTES:
                    body += message["body"]
    except TimeoutError:
        raise ApiError(408, "timeout", f"The body did not arrive within {BODY_SECONDS} s") from None
    if size > MAX_BODY_BYTES:
        raise ApiError(413, "too_large", f"The body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


async def cancel_when_gone(receive: Receive, running: anyio.CancelScope) -> None:
    """Cancel `running` as soon as the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    running.cancel()


class Completions(Generic[Body]):
    """One endpoint, as an ASGI application; `shape` is the schema of its requests."""

    def __init__(self, completer: Completer, shape: type[Body]) -> None:
        self._completer = completer
        self._shape: type[Body] = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = parse(self._shape, await read_body(receive))
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        except ClientGone:
            return
        async with anyio.create_task_group() as watch:
            watch.start_soon(cancel_when_gone, receive, watch.cancel_scope)
            await self._respond(body, scope, receive, send)
            watch.cancel_scope.cancel()

    async def _respond(self, body: Body, scope: Scope, receive: Receive, send: Send) -> None:
        reply = Reply(body.model, chat=isinstance(body, ChatBody))
        try:
            async with self._completer.answer(body.request()) as answer:
                if body.stream:
                    await _stream(body, reply, answer, send)
                    return
                whole = await _collect(body, reply, answer)
        except IntelNavError as error:
            await ApiError.of(error).response()(scope, receive, send)
        else:
            await JSONResponse(whole)(scope, receive, send)


async def _collect(body: Body, reply: Reply, answer: Answer) -> Json:
    texts: list[str] = []
    tokens: list[int] = []
    whole: Json = {}
    async for item in answer:
        if isinstance(item, Ending):
            whole = reply.whole("".join(texts), item)
            if body.intelnav:
                whole["intelnav"] = report(item, tokens)
        else:
            texts.append(item.text)
            tokens += item.tokens
    return whole


async def _stream(body: Body, reply: Reply, answer: Answer, send: Send) -> None:
    """Send the answer as server-sent events. An error is the last event, in place of `[DONE]`."""

    async def put(data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
    tokens: list[int] = []
    try:
        if reply.chat:
            await put(event(reply.opening()))
        async for item in answer:
            if isinstance(item, Ending):
                last = reply.chunk("", item.reason)
                if body.intelnav:
                    last["intelnav"] = report(item, tokens)
                await put(event(last))
                if body.usage_wanted:
                    await put(event(reply.counts(item)))
            else:
                tokens += item.tokens
                if item.text:
                    await put(event(reply.chunk(item.text)))
        await put(event("[DONE]"))
    except IntelNavError as error:
        await put(event(ApiError.of(error).body))
    await send({"type": "http.response.body", "body": b"", "more_body": False})
