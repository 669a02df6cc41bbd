from contextlib import AsyncExitStack
from dataclasses import astuple
from pathlib import Path

import anyio
import pytest

from intelnav.api import serve as module
from intelnav.api.app import build_app
from intelnav.api.serve import serve
from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError
from tests.api.conftest import Serving
from tests.fakes.completer import CountingCompleter

pytestmark = pytest.mark.anyio

STREAM = b'{"model":"counting","prompt":"","stream":true}'
ASK = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (
    len(STREAM),
    STREAM,
)


async def closes(client: anyio.abc.ByteStream) -> bool:
    """Whether the server ends the connection within five seconds; what it sends before is dropped."""
    with anyio.move_on_after(5):
        try:
            while True:
                await client.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return True
    return False


async def test_a_second_node_on_the_same_socket_is_refused_and_the_first_goes_on(serving: Serving) -> None:
    completer = CountingCompleter()
    app = build_app(completer, status=dict, ready=lambda: (True, ""))
    async with serving(completer) as node:
        with pytest.raises(ConfigError, match="another node is running"):
            await serve(app, socket=node.socket)
        assert (await node.local.get("/health")).status_code == 200


async def test_a_tcp_address_in_use_is_refused_and_the_socket_file_removed(
    serving: Serving, tmp_path: Path
) -> None:
    app = build_app(CountingCompleter(), status=dict, ready=lambda: (True, ""))
    async with serving(CountingCompleter()) as node:
        with pytest.raises(ConfigError, match=f"cannot listen on {node.address}"):
            await serve(app, socket=tmp_path / "second.sock", listen=node.address)
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []


async def test_stopping_lets_an_answer_finish(serving: Serving) -> None:
    hold = anyio.Event()
    completer = CountingCompleter(holds={1: hold})
    async with anyio.create_task_group() as group:
        async with serving(completer) as node:
            client = await anyio.connect_unix(node.socket)
            await client.send(ASK)
            await completer.opened.wait()
            group.start_soon(_set_when_gone, node.socket, hold)
        text = b""
        async with client:
            async for data in client:
                text += data
    assert b"[DONE]" in text


async def _set_when_gone(path: Path, event: anyio.Event) -> None:
    """Let the answer go on once the node no longer takes connections."""
    while True:
        try:
            await (await anyio.connect_unix(path)).aclose()
        except OSError:
            event.set()
            return


async def test_stopping_cancels_an_answer_that_does_not_finish(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0)
    completer = CountingCompleter(holds={1: anyio.Event()})
    async with serving(completer) as node:
        client = await anyio.connect_unix(node.socket)
        await client.send(ASK)
        await completer.opened.wait()
    assert completer.open == 0
    async with client:
        assert await closes(client)


async def test_a_request_that_comes_too_slowly_is_cut_off(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.2)
    async with serving(CountingCompleter()) as node, await anyio.connect_unix(node.socket) as client:
        await client.send(b"GET /health HTTP/1.1\r\nHost:")
        assert await closes(client)


async def test_an_answer_may_take_longer_than_a_request(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.2)
    hold = anyio.Event()
    completer = CountingCompleter(holds={1: hold})
    async with serving(completer) as node, anyio.create_task_group() as group:
        async with (
            await anyio.connect_unix(node.socket) as slow,
            await anyio.connect_unix(node.socket) as client,
        ):
            await client.send(ASK)
            # Opened after the answer began: when this one is cut off, the answer's time has passed as well.
            await completer.opened.wait()
            assert await closes(slow)
            hold.set()
            text = b"".join([data async for data in client])
        group.cancel_scope.cancel()
    assert b"[DONE]" in text


async def test_a_client_that_stops_reading_is_cut_off(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.2)
    completer = CountingCompleter(length=100_000, size=1000)
    async with serving(completer) as node, await anyio.connect_tcp("127.0.0.1", node.address.port) as client:
        await client.send(ASK)
        with anyio.fail_after(20):
            await completer.closed.wait()
        assert 0 < completer.given < completer.length
        assert await closes(client)


async def test_too_many_connections_on_tcp_leave_the_control_socket_free(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    async with serving(CountingCompleter()) as node, AsyncExitStack() as idle:

        async def connect() -> anyio.abc.ByteStream:
            return await idle.enter_async_context(await anyio.connect_tcp(*astuple(node.address)))

        await connect()
        assert (await node.remote.get("/health")).status_code == 503
        for _ in range(3):
            await connect()
        assert await closes(await connect())
        assert (await node.local.get("/health")).status_code == 200


async def test_hostile_bytes_do_not_disturb_an_answer_in_progress(serving: Serving) -> None:
    hold = anyio.Event()
    completer = CountingCompleter(holds={1: hold})
    async with serving(completer) as node, await anyio.connect_unix(node.socket) as client:
        await client.send(ASK)
        await completer.opened.wait()
        for junk in (
            b"\x00" * 500,
            b"GET " + b"/" * 100_000,
            b"\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\n",
            b"A: b\r\n" * 9,
        ):
            async with await anyio.connect_unix(node.socket) as other:
                await other.send(junk)
        hold.set()
        assert b"[DONE]" in b"".join([data async for data in client])


async def test_it_listens_where_it_says(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        assert node.address == Address("127.0.0.1", node.address.port)
        assert node.address.port != 0
        assert (await node.remote.get("/health")).json() == {"ready": True}
