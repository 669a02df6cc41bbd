"""Signed seed lists, fetched over HTTPS and kept on disk ([B4], [B5] in docs/protocol.md)."""

import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio

from intelnav.config import SeedConfig
from intelnav.domain.advert import Address
from intelnav.domain.errors import Code, PeerError
from intelnav.wire.seeds import MAX_BYTES, SeedList, accept_seeds, read_seeds

log = logging.getLogger(__name__)

FRESH_SECONDS = 7 * 86_400.0
FETCH_SECONDS = 20.0
# The first wait after a failure; it doubles up to the last.
RETRY_SECONDS = 60.0
LAST_RETRY_SECONDS = 6 * 3600.0


class SeedLists:
    """The lists of `sources`, kept in `folder`. `found` is called with every address known whenever a list has changed.

    `now` is Unix time in seconds. A list on disk is held against its key as one from outside is; one that has expired
    is used all the same as long as there is no other: its addresses may be stale, but they are the signer's.
    """

    def __init__(
        self,
        sources: Sequence[SeedConfig],
        folder: Path,
        found: Callable[[tuple[Address, ...]], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._found = found
        self._now = now
        self._kept = [_Kept(source, folder / _name(source)) for source in sources]

    def load(self) -> None:
        """Take up what is on disk, so that it can be used before anything is fetched."""
        for kept in self._kept:
            kept.load()
        if self.addresses:
            self._found(self.addresses)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Every address known, each once, in the order of the sources."""
        lists = (kept.seeds.addresses for kept in self._kept if kept.seeds is not None)
        return tuple(dict.fromkeys(address for addresses in lists for address in addresses))

    def status(self) -> list[dict[str, Any]]:
        """Plain JSON for each source; `state` is `none`, `fresh`, `stale` or `expired`, `reason` the last failure."""
        return [kept.status(self._now()) for kept in self._kept]

    async def run(self) -> None:
        """Fetch what is not fresh, now and whenever it has become old; runs until cancelled."""
        async with anyio.create_task_group() as tasks:
            for kept in self._kept:
                tasks.start_soon(self._refresh, kept)

    async def _refresh(self, kept: "_Kept") -> None:
        retry = RETRY_SECONDS
        while True:
            wait = kept.fresh_for(self._now())
            if wait <= 0:
                before = kept.seeds
                try:
                    kept.take(await fetch(kept.source.url), self._now())
                    retry = RETRY_SECONDS
                except (PeerError, OSError) as error:
                    kept.reason = str(error)
                    log.warning("seed list %s: %s; next try in %.0f s", kept.source.url, error, retry)
                    wait, retry = retry, min(2 * retry, LAST_RETRY_SECONDS)
                if kept.seeds != before:
                    self._found(self.addresses)
            # Not all of a week at once: the clock may be set, and the machine may sleep.
            await anyio.sleep(min(wait, LAST_RETRY_SECONDS))


class _Kept:
    """One source's list, here and on disk. The file has the signed bytes; its time is that of the fetch."""

    def __init__(self, source: SeedConfig, path: Path) -> None:
        self.source = source
        self.seeds: SeedList | None = None
        self.reason = ""
        self._path = path
        self._fetched = 0.0

    def load(self) -> None:
        try:
            with self._path.open("rb") as file:
                self.seeds = read_seeds(file.read(MAX_BYTES + 1), self.source.key)
                self._fetched = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            pass
        except (PeerError, OSError) as error:
            self.reason = f"{self._path}: {error}"
            log.warning("seed list %s: what is in %s is not used: %s", self.source.url, self._path, error)

    def fresh_for(self, now: float) -> float:
        """Seconds for which nothing needs to be fetched; none if the list expired or the clock was set back."""
        if self.seeds is None or now < self._fetched:
            return 0.0
        return min(self._fetched + FRESH_SECONDS, self.seeds.expires) - now

    def take(self, data: bytes, now: float) -> None:
        """Use and keep a list from outside; PeerError if it is not to be used, OSError if it cannot be kept."""
        self.seeds = accept_seeds(data, self.source.key, now=now, known=self.seeds)
        self._fetched = now
        self.reason = ""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            draft.write_bytes(data)
            os.utime(draft, (now, now))
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)

    def status(self, now: float) -> dict[str, Any]:
        seeds = self.seeds
        if seeds is None:
            state = "none"
        elif seeds.expires <= now:
            state = "expired"
        else:
            state = "fresh" if self.fresh_for(now) > 0 else "stale"
        return {
            "url": self.source.url,
            "key": str(self.source.key),
            "state": state,
            "addresses": len(seeds.addresses) if seeds is not None else 0,
            "issued": seeds.issued if seeds is not None else None,
            "expires": seeds.expires if seeds is not None else None,
            "reason": self.reason,
        }


async def fetch(url: str) -> bytes:
    """What lies at `url`, at most as large as a seed list may be; PeerError if it cannot be had within 20 seconds."""
    # Imported here: most starts find a fresh list on disk.
    import httpx

    try:
        with anyio.fail_after(FETCH_SECONDS):
            async with (
                httpx.AsyncClient(headers={"accept-encoding": "identity"}) as client,
                client.stream("GET", url) as response,
            ):
                if response.status_code != 200:
                    raise PeerError(Code.CLOSED, f"the server answered with HTTP {response.status_code}")
                data = b""
                # Raw, so that nothing is unpacked: a few bytes can stand for very many.
                async for part in response.aiter_raw():
                    data += part
                    if len(data) > MAX_BYTES:
                        raise PeerError(Code.BAD_REQUEST, f"a seed list has at most {MAX_BYTES} bytes")
                return data
    except TimeoutError:
        raise PeerError(Code.TIMEOUT, f"not there within {FETCH_SECONDS:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise PeerError(Code.CLOSED, f"cannot be fetched: {error or type(error).__name__}") from error


def _name(source: SeedConfig) -> str:
    """A file name for a source; another key or address is another file."""
    return sha256(f"{source.key} {source.url}".encode()).hexdigest()[:32]
