from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from intelnav.net.web import http_client, next_place
from tests.hub import head, serving

pytestmark = pytest.mark.anyio


async def test_no_server_can_leave_a_cookie() -> None:
    sent = []
    with serving() as hub:

        def answer(handler: BaseHTTPRequestHandler) -> None:
            sent.append(handler.headers["Cookie"])
            head(handler, 200, Set_Cookie="known=1; Max-Age=9999", Content_Length=0)

        hub.behaviours["/"] = answer
        async with http_client() as client:
            for _ in range(2):
                assert (await client.get(hub.url("/"))).status_code == 200
    assert sent == [None, None]


@pytest.mark.parametrize(
    ("place", "location", "target"),
    [
        ("http://a/x", "/y", "http://a/y"),
        ("http://a/x", "https://b/", "https://b/"),
        ("https://a/x", "y?z=1", "https://a/y?z=1"),
    ],
)
def test_where_a_redirect_leads(place: str, location: str, target: str) -> None:
    assert next_place(httpx.URL(place), location) == httpx.URL(target)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://a/", "javascript:x", "http://a:99999999/", "\x00"]
)
def test_a_redirect_to_no_web_address_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        next_place(httpx.URL("http://a/"), location)


def test_a_redirect_to_an_unencrypted_address_is_refused() -> None:
    with pytest.raises(ValueError, match="not encrypted"):
        next_place(httpx.URL("https://a/"), "http://a/")
