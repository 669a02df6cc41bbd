import errno
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import anyio
import httpx
import pytest

from intelnav.api import jobs
from intelnav.api.control import Conflict
from intelnav.api.models import Damage, ListedModel
from intelnav.domain.errors import ConfigError, ContentError, IntelNavError
from intelnav.domain.slice import LayerRange
from tests.api.conftest import Serving
from tests.fakes.completer import CountingCompleter
from tests.fakes.library import CID, LOCAL, OFFERED

pytestmark = pytest.mark.anyio


def events(answer: httpx.Response) -> list[object]:
    """What a stream said, without its end mark."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_models_are_listed_on_both_sockets(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        for client in (node.local, node.remote):
            answer = await client.get("/models")
            assert answer.json() == {
                "models": [_plain(LOCAL), _plain(OFFERED)],
                "used_bytes": 500_000,
                "max_bytes": 2_000_000_000,
            }


def _plain(model: ListedModel) -> object:
    return json.loads(json.dumps(asdict(model)))


async def test_an_import_ends_with_the_model(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.local.post("/models/import", json={"what": "/models/tiny.gguf"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events(answer)[-1] == {"result": _plain(LOCAL)}
    assert node.library.asked == [("bring", "/models/tiny.gguf")]


async def test_work_is_watched_while_it_goes_on(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "TICK_SECONDS", 0.01)
    async with serving(CountingCompleter()) as node:
        node.library.steps = [anyio.Event() for _ in range(3)]
        seen: list[int] = []
        async with node.local.stream("POST", "/models/import", json={"what": "tiny"}) as answer:
            lines = answer.aiter_lines()
            for step in node.library.steps:
                event = await _next(lines)
                while event["done"] < 10 * len(seen):
                    event = await _next(lines)
                assert (event["stage"], event["total"]) == ("downloading", 30)
                seen.append(event["done"])
                step.set()
            rest = [line async for line in lines if line]
    assert seen == [0, 10, 20]
    assert json.loads(rest[-2].removeprefix("data: ")) == {"result": _plain(LOCAL)}
    assert rest[-1] == "data: [DONE]"


async def _next(lines: AsyncIterator[str]) -> dict[str, Any]:
    while not (line := await anext(lines)):
        pass
    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return event


async def test_a_client_that_goes_away_cancels_the_work(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "TICK_SECONDS", 0.01)
    async with serving(CountingCompleter()) as node:
        node.library.steps = [anyio.Event()]
        async with node.local.stream("POST", "/models/import", json={"what": "tiny"}) as answer:
            assert await anext(answer.aiter_lines())
            assert node.library.at_work == 1
        with anyio.fail_after(10):
            await node.library.cancelled.wait()
        assert (await node.local.get("/health")).status_code == 200


class Full(IntelNavError):
    code = "store_full"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConfigError("no such model"), 404, "model_not_found"),
        (Conflict("layers 8..15 are in use"), 409, "conflict"),
        (ContentError("tensor 7 lies outside the file"), 422, "content"),
        (Full("20 GB are wanted"), 507, "store_full"),
        (OSError(errno.ENOSPC, "No space left on device", "/store/x"), 507, "storage"),
    ],
)
async def test_what_fails_at_once_is_a_refusal(
    serving: Serving, error: Exception, status: int, code: str
) -> None:
    async with serving(CountingCompleter()) as node:
        node.library.fail = error
        for method, path in (
            ("POST", "/models/import"),
            ("POST", "/models/verify"),
            ("DELETE", f"/models/{CID}"),
        ):
            answer = await node.local.request(method, path, json={"what": "tiny"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert (str(error.strerror) if isinstance(error, OSError) else str(error)) in answer.text


async def test_what_fails_later_is_the_last_event(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "TICK_SECONDS", 0.01)
    async with serving(CountingCompleter()) as node:
        node.library.steps = [anyio.Event()]
        node.library.fail = ContentError("the hash is another")
        async with node.local.stream("POST", "/models/import", json={"what": "tiny"}) as answer:
            lines = answer.aiter_lines()
            await _next(lines)
            node.library.steps[0].set()
            rest = [line async for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "content"


async def test_a_bug_in_the_work_ends_one_request_only(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        node.library.fail = ZeroDivisionError()
        answer = await node.local.post("/models/verify")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
        node.library.fail = None
        assert (await node.local.post("/models/verify")).status_code == 200


async def test_a_model_or_a_slice_is_removed(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        assert (await node.local.delete(f"/models/{CID}")).json() == {"freed_bytes": 500_000}
        assert (await node.local.delete(f"/models/{CID}/2..4")).json() == {"freed_bytes": 500_000}
        bad = await node.local.delete(f"/models/{CID}/4..2")
    assert node.library.asked == [("remove", CID, None), ("remove", CID, LayerRange(2, 4))]
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "layers")


async def test_damage_is_told(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        node.library.damaged = (Damage(CID, "2..4", "piece 3 of blk.2 has another hash; set aside"),)
        one = events(await node.local.post(f"/models/{CID}/verify"))
        every = events(await node.local.post("/models/verify"))
    assert one[-1] == every[-1] == {"result": {"damaged": [asdict(node.library.damaged[0])]}}
    assert node.library.asked == [("verify", CID), ("verify", None)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"what": 7}',
        b'{"what": ""}',
        b'{"what": "a\\u0000b"}',
        b'{"what": "' + b"x" * 5000 + b'"}',
        b"[" * 9999,
    ],
)
async def test_a_body_that_names_nothing_is_refused(serving: Serving, body: bytes) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.local.post("/models/import", content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "what")
    assert node.library.asked == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/models/import"),
        ("POST", "/models/verify"),
        ("POST", f"/models/{CID}/verify"),
        ("DELETE", f"/models/{CID}"),
        ("DELETE", f"/models/{CID}/0..2"),
    ],
)
async def test_nothing_is_changed_over_tcp(serving: Serving, method: str, path: str) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.remote.request(method, path, json={"what": "tiny"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "control_socket_only")
    assert node.library.asked == []
