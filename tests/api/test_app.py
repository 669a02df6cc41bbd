import pytest

from tests.api.conftest import Serving
from tests.fakes.completer import CountingCompleter

pytestmark = pytest.mark.anyio


async def test_health_says_whether_and_why_not(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.local.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"ready": True})
        node.readiness.append((False, "no peer has layers 8..15"))
        answer = await node.local.get("/health")
    assert (answer.status_code, answer.json()) == (
        503,
        {"ready": False, "reason": "no peer has layers 8..15"},
    )


async def test_status_is_what_the_node_says(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        assert (await node.remote.get("/status")).json() == {"peer": "me"}


async def test_models_are_listed_and_found_by_name_and_by_cid(serving: Serving) -> None:
    model = {
        "id": "counting",
        "object": "model",
        "created": 0,
        "owned_by": "intelnav",
        "cid": "b3-counting",
        "context": 4096,
    }
    async with serving(CountingCompleter()) as node:
        assert (await node.local.get("/v1/models")).json() == {"object": "list", "data": [model]}
        for name in ("counting", "b3-counting"):
            assert (await node.local.get(f"/v1/models/{name}")).json() == model
        missing = await node.local.get("/v1/models/owner/other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_wrong_path_or_method_gets_an_error_object(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        path = await node.local.get("/v2/models")
        method = await node.local.get("/v1/completions")
    assert (path.status_code, path.json()["error"]["code"]) == (404, "not_found")
    assert (method.status_code, method.json()["error"]["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_gets_an_error_object_and_ends_one_request_only(serving: Serving, stream: bool) -> None:
    completer = CountingCompleter(fail_open=ZeroDivisionError())
    body = {"model": "counting", "prompt": "", "stream": stream}
    async with serving(completer) as node:
        answer = await node.local.post("/v1/completions", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["code"]) == (500, "server_error", "internal")
        completer.fail_open = None
        assert (await node.local.post("/v1/completions", json=body)).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("127.0.0.1:7717", None, True),
        ("[::1]:7717", None, True),
        ("localhost:7717", "http://localhost:7717", True),
        ("node-1:7717", None, True),
        ("box.local:7717", "http://box.local:7717", True),
        ("127.0.0.1:7717", "http://evil.example", False),
        ("127.0.0.1:7717", "null", False),
        ("127.0.0.1:7717", "http://[", False),
        ("127.0.0.1:7717", "http://127.0.0.1:8080", False),
        # A page whose own name was rebound to this machine is of the same origin as what it calls.
        ("evil.example:7717", "http://evil.example:7717", False),
        ("evil.example:7717", None, False),
        ("127.0.0.1.evil.example", None, False),
        ("[::1", None, False),
    ],
)
async def test_pages_of_other_sites_may_not_call(
    serving: Serving, host: str, origin: str | None, allowed: bool
) -> None:
    headers = {"Host": host} | ({"Origin": origin} if origin is not None else {})
    completer = CountingCompleter()
    async with serving(completer) as node:
        answer = await node.remote.post(
            "/v1/completions", json={"model": "counting", "prompt": ""}, headers=headers
        )
    assert answer.status_code == (200 if allowed else 403)
    assert len(completer.requests) == (1 if allowed else 0)
    assert "access-control-allow-origin" not in answer.headers
