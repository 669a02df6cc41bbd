import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from intelnav.cli.client import NodeClient, NodeError
from tests.cli.conftest import Served

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"

Answering = Callable[[bytes], str]


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """Starts a server that gives these bytes to whatever asks it first, and hangs up."""
    threads: list[threading.Thread] = []
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tmp_path / "raw.sock"))
        listener.listen()

        def start(reply: bytes) -> str:
            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)

            threads.append(threading.Thread(target=serve))
            threads[-1].start()
            return str(tmp_path / "raw.sock")

        yield start
        for thread in threads:
            thread.join(10)


@pytest.mark.parametrize(
    ("where", "environ", "expected"),
    [
        (None, {}, str(Path.home() / ".local/share/intelnav/control.sock")),
        (None, {"INTELNAV_DATA_DIR": "/data"}, "/data/control.sock"),
        (None, {"INTELNAV_DATA_DIR": "/data", "INTELNAV_NODE": "/node"}, "/node/control.sock"),
        ("/given", {"INTELNAV_NODE": "/node"}, "/given/control.sock"),
        ("~/x/other.sock", {}, str(Path.home() / "x/other.sock")),
        ("http://192.0.2.7:8080", {}, "http://192.0.2.7:8080"),
    ],
)
def test_where_a_node_is(where: str | None, environ: dict[str, str], expected: str) -> None:
    with NodeClient(where, environ) as node:
        assert node.where == expected


@pytest.mark.parametrize("where", ["/nowhere", "http://127.0.0.1:1", "http://[", f"/{'x' * 200}"])
def test_no_node_is_an_error_that_says_where_it_was_looked_for(where: str) -> None:
    with pytest.raises(NodeError) as caught, NodeClient(where) as node:
        node.status()
    assert where in str(caught.value)


def test_a_proxy_is_not_asked(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with NodeClient(f"http://{served.address}") as node:
        assert node.models() == ["counting"]


def test_readiness(served: Served) -> None:
    with NodeClient(str(served.socket)) as node:
        assert node.unready() is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "broke off"),
        (b"", "broke off"),
        (OK + b"<html>", "is no IntelNav node"),
        (OK + b"[]", "is no IntelNav node"),
        (OK + b'{"data": [7]}', "is no IntelNav node"),
        (OK + b'{"data": []}', "answers for no model"),
        (b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n<html>", "answered /v1/models with HTTP 404"),
        (b'HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\n{"error": {"message": "all taken"}}', "all taken"),
    ],
)
def test_what_is_no_node_is_told(answering: Answering, reply: bytes, reason: str) -> None:
    with NodeClient(answering(reply)) as node, pytest.raises(NodeError, match=reason):
        node.models()


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "broke off before the end"),
        (b'data: {"choices": [{"text": "so", "finish_reason": null}]}\n\n', "broke off before the end"),
        (b"data: {\n\n", "is no IntelNav node"),
        (b"data: []\n\n", "is no IntelNav node"),
        (b'data: {"error": {"message": "peer-b is gone", "code": "closed"}}\n\n', "peer-b is gone"),
    ],
)
def test_a_stream_that_does_not_end_well_is_an_error(
    answering: Answering, stream: bytes, reason: str
) -> None:
    with NodeClient(answering(OK + stream)) as node, node.ask("hi", "any") as reply:
        texts = iter(reply)
        with pytest.raises(NodeError, match=reason):
            list(texts)


def test_an_error_keeps_its_code(answering: Answering) -> None:
    stream = b'data: {"error": {"message": "peer-b is gone", "code": "closed"}}\n\n'
    with NodeClient(answering(OK + stream)) as node, node.ask("hi", "any") as reply:
        texts = iter(reply)
        with pytest.raises(NodeError) as caught:
            next(texts)
    assert caught.value.code == "closed"


def test_an_error_of_the_reader_is_not_blamed_on_the_node(served: Served) -> None:
    def read() -> None:
        with NodeClient(str(served.socket)) as node, node.ask("hi") as reply:
            for _ in reply:
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        read()
