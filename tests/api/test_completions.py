import json
from typing import Any

import anyio
import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from intelnav.api import completions
from intelnav.domain.errors import Code, EngineError, PeerError
from tests.api.conftest import Node, Serving
from tests.fakes.completer import CountingCompleter

pytestmark = pytest.mark.anyio

CHAT: dict[str, Any] = {"model": "counting", "messages": [{"role": "user", "content": "Count."}]}
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Count."}]


def official(node: Node) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"http://{node.address}/v1", api_key="unused", max_retries=0, timeout=10
    )


async def test_the_official_client_chats(serving: Serving) -> None:
    completer = CountingCompleter()
    async with serving(completer) as node, official(node) as client:
        answer = await client.chat.completions.create(
            model="counting", messages=MESSAGES, seed=5, temperature=0
        )
    assert answer.choices[0].message.content == "0 1 2 3 "
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        7,
        4,
        11,
    )
    asked = completer.requests[0]
    assert asked.messages == ({"role": "user", "content": "Count."},)
    assert (asked.prompt, asked.sampling.seed, asked.sampling.temperature) == (None, 5, 0)


async def test_the_official_client_streams_a_chat(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node, official(node) as client:
        stream = await client.chat.completions.create(
            model="counting",
            messages=MESSAGES,
            max_tokens=3,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    choices = [chunk.choices[0] for chunk in chunks[:-1]]
    assert choices[0].delta.role == "assistant"
    assert [choice.delta.content for choice in choices[1:-1]] == ["0 ", "1 ", "2 "]
    assert [choice.finish_reason for choice in choices] == [None] * 4 + ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


async def test_the_official_client_completes_a_raw_prompt(serving: Serving) -> None:
    completer = CountingCompleter()
    async with serving(completer) as node, official(node) as client:
        whole = await client.completions.create(model="b3-counting", prompt="0 ", stop="9")
        stream = await client.completions.create(model="counting", prompt=["0 "], stream=True)
        texts = [chunk.choices[0].text async for chunk in stream]
    assert whole.choices[0].text == "".join(texts) == "0 1 2 3 "
    assert [(asked.prompt, asked.messages, asked.stop) for asked in completer.requests] == [
        ("0 ", None, ("9",)),
        ("0 ", None, ()),
    ]


async def test_the_official_client_raises_for_an_error_in_mid_stream(serving: Serving) -> None:
    completer = CountingCompleter(fail_after=(2, EngineError("the worker died")))
    async with serving(completer) as node, official(node) as client:
        stream = await client.chat.completions.create(model="counting", messages=MESSAGES, stream=True)
        texts = []

        async def read() -> None:
            async for chunk in stream:
                texts.append(chunk.choices[0].delta.content)

        with pytest.raises(openai.APIError, match="the worker died") as caught:
            await read()
    assert texts == ["", "0 ", "1 "]
    assert caught.value.code == "engine_failed"


async def test_a_stream_that_failed_closes_without_done(serving: Serving) -> None:
    completer = CountingCompleter(fail_after=(1, PeerError(Code.TIMEOUT, "no answer from the tail")))
    async with serving(completer) as node:
        text = (await node.local.post("/v1/chat/completions", json=CHAT | {"stream": True})).text
    last = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last == {
        "error": {
            "message": "no answer from the tail",
            "type": "server_error",
            "param": None,
            "code": "timeout",
        }
    }


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_tokens_chain_and_timing_are_added_on_request(
    serving: Serving, path: str, stream: bool
) -> None:
    body = {"model": "counting", "stream": stream, "intelnav": True}
    body |= {"prompt": "0 "} if path == "/v1/completions" else {"messages": CHAT["messages"]}
    async with serving(CountingCompleter()) as node:
        answer = await node.local.post(path, json=body)
    data = (
        json.loads(answer.text.strip().split("\n\n")[-2].removeprefix("data: ")) if stream else answer.json()
    )
    assert data["choices"][0]["finish_reason"] == "stop"
    assert data["intelnav"] == {
        "tokens": [0, 10, 20, 30],
        "chain": [
            {"peer": "peer-a", "layers": "0..8", "milliseconds": 1.5},
            {"peer": "peer-b", "layers": "8..30", "milliseconds": 2.5},
        ],
        "timing": {"open": 0.25, "first_token": 0.5, "total": 1.0, "tokens_per_second": 8.0},
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_answer_has_its_status(serving: Serving, stream: bool) -> None:
    completer = CountingCompleter(fail_open=PeerError(Code.BUSY, "every sequence is taken"))
    async with serving(completer) as node:
        answer = await node.local.post("/v1/chat/completions", json=CHAT | {"stream": stream})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
    assert int(answer.headers["retry-after"]) > 0


async def test_an_unknown_model_is_not_found_and_the_served_ones_are_named(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node, official(node) as client:
        with pytest.raises(openai.NotFoundError, match="serves counting") as caught:
            await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_wrong_field_is_refused_before_the_chain_hears_of_it(serving: Serving) -> None:
    completer = CountingCompleter()
    async with serving(completer) as node, official(node) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="counting", messages=MESSAGES, n=2)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "n")
    assert completer.requests == []


async def test_a_client_that_leaves_mid_stream_cancels_at_once_though_no_token_comes(
    serving: Serving,
) -> None:
    completer = CountingCompleter(holds={1: anyio.Event()})
    async with serving(completer) as node:
        for client in (node.local, node.remote):
            completer.closed = anyio.Event()
            async with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
                lines = answer.aiter_lines()
                while "0 " not in await anext(lines):
                    pass
                assert completer.open == 1
            with anyio.fail_after(5):
                await completer.closed.wait()
            assert completer.open == 0


async def test_a_client_that_leaves_without_streaming_cancels_too(serving: Serving) -> None:
    completer = CountingCompleter(holds={1: anyio.Event()})
    async with serving(completer) as node, anyio.create_task_group() as group:
        group.start_soon(lambda: node.local.post("/v1/chat/completions", json=CHAT))
        with anyio.fail_after(5):
            await completer.opened.wait()
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await completer.closed.wait()
                assert completer.open == 0


async def test_a_client_that_leaves_before_its_body_is_complete_starts_nothing(serving: Serving) -> None:
    completer = CountingCompleter()
    async with serving(completer) as node:
        async with await anyio.connect_unix(node.socket) as client:
            head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
            await client.send(head)
        assert (await node.local.get("/health")).status_code == 200
    assert completer.requests == []


async def test_two_hundred_clients_that_leave_mid_answer_leave_nothing_behind(serving: Serving) -> None:
    completer = CountingCompleter(holds={2: anyio.Event()})

    async def leave(node: Node) -> None:
        async with node.local.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
            await anext(answer.aiter_lines())

    async with serving(completer) as node:
        for _ in range(10):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(leave, node)
        with anyio.fail_after(5):
            while completer.open:
                await anyio.lowlevel.checkpoint()
    assert len(completer.requests) == 200


@pytest.mark.parametrize("size", [completions.MAX_BODY_BYTES + 1, 3 * completions.MAX_BODY_BYTES])
async def test_an_oversized_body_is_refused(serving: Serving, size: int) -> None:
    completer = CountingCompleter()
    body = b'{"model":"counting","prompt":"' + b"x" * size + b'"}'

    async def unannounced() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    async with serving(completer) as node:
        for client in (node.local, node.remote):
            for content in (body, unannounced()):
                answer = await client.post("/v1/completions", content=content)
                assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert completer.requests == []


async def test_a_body_that_comes_too_slowly_is_refused(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "BODY_SECONDS", 0.1)
    async with serving(CountingCompleter()) as node, await anyio.connect_unix(node.socket) as client:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
        await client.send(head)
        with anyio.fail_after(5):
            assert b" 408 " in await client.receive()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"model": "counting"', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"messages":' + b'{"a":' * 50_000, "invalid_json"),
        (b"[]", "invalid_value"),
    ],
)
async def test_what_is_no_request_is_refused(serving: Serving, content: bytes, code: str) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.local.post("/v1/chat/completions", content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_eight_clients_at_once_are_answered_apart(serving: Serving) -> None:
    completer = CountingCompleter(length=20)
    answers: dict[int, str] = {}

    async def ask(client: httpx.AsyncClient, count: int) -> None:
        answer = await client.post(
            "/v1/completions", json={"model": "counting", "prompt": "", "max_tokens": count}
        )
        answers[count] = answer.json()["choices"][0]["text"]

    async with serving(completer) as node, anyio.create_task_group() as group:
        for count in range(1, 9):
            group.start_soon(ask, node.remote, count)
    assert answers == {count: "".join(f"{n} " for n in range(count)) for count in range(1, 9)}
