"""What all fetching over HTTP shares: a client that servers learn nothing by, and where a redirect may lead."""

from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx


def http_client() -> httpx.AsyncClient:
    """A client for any number of requests at once, which keeps no cookie: peers could know a node again by one."""
    refusing = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    # Fetches bound their requests; one that waited for a place here would blame the server.
    return httpx.AsyncClient(cookies=refusing, limits=httpx.Limits(max_keepalive_connections=20))


def next_place(place: httpx.URL, location: str) -> httpx.URL:
    """Where a redirect from `place` leads; ValueError with the reason if nobody should follow it."""
    try:
        target = place.join(location)
    except (httpx.InvalidURL, ValueError):
        target = httpx.URL("")
    # A port that no socket takes would end as an OverflowError, which is nobody's network error.
    if not target.host or target.scheme not in ("http", "https") or (target.port or 0) > 65535:
        raise ValueError(f"redirects to {location[:200]!r}, which is no address")
    if place.scheme == "https" and target.scheme != "https":
        raise ValueError(f"redirects to {str(target)[:200]}, which is not encrypted")
    return target
