import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import anyio
import pytest

from intelnav.api.control import Conflict, Event, UnknownSlice
from intelnav.domain.errors import Code, ConfigError, EngineError, PeerError
from intelnav.domain.slice import LayerRange
from tests.api.conftest import Serving
from tests.fakes.completer import CountingCompleter
from tests.fakes.control import ARRIVING, EVENTS, HELD, PLANNED

pytestmark = pytest.mark.anyio

SLICE = {"model": "tiny", "layers": "2..4"}
CHANGES = [("/plan", {}), ("/leave", SLICE), ("/join", SLICE), ("/reload", {})]


def _plain(value: object) -> object:
    return json.loads(json.dumps(value))


async def test_a_plan_of_now_and_one_of_an_edit(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        now = await node.local.post("/plan", json={})
        bare = await node.local.post("/plan")
        yaml = await node.local.post("/plan", json={"config": "slices: []\n"})
        toml = await node.local.post("/plan", json={"config": "a = 1", "format": "toml"})
    for answer in (now, bare, yaml, toml):
        assert (answer.status_code, answer.json()) == (200, _plain(asdict(PLANNED)))
    assert node.control.asked == [
        ("plan", None, "yaml"),
        ("plan", None, "yaml"),
        ("plan", "slices: []\n", "yaml"),
        ("plan", "a = 1", "toml"),
    ]


async def test_hosting_is_told_on_both_sockets(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        for client in (node.local, node.remote):
            answer = await client.get("/hosting")
            assert answer.json() == {"hosting": [_plain(asdict(HELD)), _plain(asdict(ARRIVING))]}
    assert answer.json()["hosting"][0]["chains"][0]["session"] == "0badcafe"


async def test_a_slice_is_left_and_another_joined(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        left = await node.local.post("/leave", json=SLICE)
        joined = await node.local.post("/join", json={"model": "hf://o/r/f.gguf", "layers": " 0..2"})
        loaded = await node.local.post("/reload")
    assert left.json() == {
        **SLICE,
        "state": "draining",
        "in_use": 1,
        "until": "the config is next loaded",
    }
    assert (joined.json()["layers"], joined.json()["state"]) == ("0..2", "pending")
    assert loaded.json() == {"generation": 4, "changed": True}
    assert node.control.asked == [
        ("leave", "tiny", LayerRange(2, 4)),
        ("join", "hf://o/r/f.gguf", LayerRange(0, 2)),
        ("reload",),
    ]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConfigError("slices[0].layers = 9..8: no"), 400, "config"),
        (UnknownSlice("it is not hosted"), 404, "slice_not_found"),
        (Conflict("it is hosted already"), 409, "conflict"),
        (PeerError(Code.TIMEOUT, "nobody answered"), 502, "timeout"),
        (EngineError("no worker"), 502, "engine_failed"),
    ],
)
@pytest.mark.parametrize(("path", "body"), CHANGES)
async def test_a_refusal_has_its_status_and_its_text(
    serving: Serving, path: str, body: object, error: Exception, status: int, code: str
) -> None:
    async with serving(CountingCompleter()) as node:
        node.control.fail = error
        answer = await node.local.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"] == str(error)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/plan", b"[]", None),
        ("/plan", b"{", None),
        ("/plan", b"[" * 9999, None),
        ("/plan", b'{"config": 7}', "config"),
        ("/plan", b'{"config": "", "format": "json"}', "format"),
        ("/plan", b'{"format": "toml"}', None),
        ("/plan", b'{"text": ""}', "text"),
        ("/reload", b'{"force": true}', "force"),
        ("/leave", b"", None),
        ("/leave", b'{"model": "tiny"}', "layers"),
        ("/leave", b'{"layers": "0..2"}', "model"),
        ("/leave", b'{"model": "", "layers": "0..2"}', "model"),
        ("/leave", b'{"model": "a\\u0000b", "layers": "0..2"}', "model"),
        ("/leave", b'{"model": "' + b"x" * 4097 + b'", "layers": "0..2"}', "model"),
        ("/leave", b'{"model": "tiny", "layers": "2..0"}', "layers"),
        ("/join", b'{"model": "tiny", "layers": [0, 2]}', "layers"),
        ("/join", b'{"model": "tiny", "layers": "..", "wait": true}', "layers"),
        ("/join", b'{"model": "tiny", "layers": "0..2", "wait": true}', "wait"),
    ],
)
async def test_a_wrong_body_is_refused_by_name_and_does_nothing(
    serving: Serving, path: str, body: bytes, param: str | None
) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.local.post(path, content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert node.control.asked == []


async def test_a_config_that_is_too_long_is_refused(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.local.post("/plan", json={"config": "#" * 2**20})
    assert (answer.status_code, node.control.asked) == (413, [])


async def test_nothing_is_steered_over_tcp(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        answers = [await node.remote.post(path, json=body) for path, body in CHANGES]
        answers.append(await node.remote.get("/events?follow=0"))
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "control_socket_only")
        assert "control.sock" in answer.json()["error"]["message"]
    assert node.control.asked == []


async def test_the_events_that_are_kept_are_told(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        every = await node.local.get("/events?follow=0")
        later = await node.local.get("/events?follow=0&after=3")
        none = await node.local.get("/events?follow=0&after=4")
    assert every.headers["content-type"].startswith("text/event-stream")
    first, second = (event.as_json() for event in EVENTS)
    assert [_data(answer.text) for answer in (every, later, none)] == [
        [first, second, "[DONE]"],
        [second, "[DONE]"],
        ["[DONE]"],
    ]


def _data(text: str) -> list[object]:
    found = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


async def test_who_follows_is_told_at_once_until_the_node_stops(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node, node.local.stream("GET", "/events?after=4") as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == ":"
        for seq in (5, 6):
            await node.control.wait_followed()
            node.control.tell(Event(seq, 0.0, "node", f"event {seq}"))
            assert (await _next(lines))["seq"] == seq
        await node.control.wait_followed()
        node.control.stop()
        assert [line async for line in lines if line] == ["data: [DONE]"]


async def test_a_follower_that_goes_away_is_forgotten(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        async with node.local.stream("GET", "/events") as answer:
            await _next(answer.aiter_lines())
            await node.control.wait_followed()
        with anyio.fail_after(10):
            await node.control.gone.wait()


async def _next(lines: AsyncIterator[str]) -> dict[str, Any]:
    while not (line := await anext(lines)).startswith("data: "):
        pass
    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return event


@pytest.mark.parametrize("query", ["after=x", "after=-1", "after=" + "9" * 20, "follow=yes", "since=3"])
async def test_a_wrong_query_is_refused_by_name(serving: Serving, query: str) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.local.get(f"/events?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.split("=")[0])
