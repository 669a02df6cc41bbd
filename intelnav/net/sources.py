"""Where the bytes of a model can come from: peers that give out blobs, and whole GGUFs behind HTTP."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import anyio
import httpx

from intelnav.domain.advert import Address
from intelnav.domain.errors import ContentError
from intelnav.net.ranges import Missing, SourceError, read_range, read_whole
from intelnav.store.extents import Located, in_file
from intelnav.store.gguf_reader import MAX_HEADER, parse_header
from intelnav.store.manifest import MAX_MANIFEST, Blob, Manifest

# The first part of a remote GGUF that is read for its header; doubled as long as that is not all.
FIRST_HEADER = 256 * 1024


class Source(Protocol):
    """One place that may have some of a model. Its methods raise SourceError, Missing or Busy."""

    name: str

    async def manifest(self, cid: str) -> bytes:
        """What it says is the manifest with this CID."""
        ...

    def read(self, blob: Blob, start: int, end: int) -> AsyncGenerator[bytes]:
        """Bytes `start` to `end` of a blob: as many, but nobody has checked them."""
        ...


class PeerSource:
    """A node's chunk server."""

    def __init__(self, client: httpx.AsyncClient, address: Address) -> None:
        self.name = f"http://{address}"
        self._client = client

    async def manifest(self, cid: str) -> bytes:
        """See `Source`."""
        return await read_whole(self._client, f"{self.name}/v1/models/{cid}/manifest", MAX_MANIFEST)

    def read(self, blob: Blob, start: int, end: int) -> AsyncGenerator[bytes]:
        """See `Source`."""
        return read_range(self._client, f"{self.name}/v1/blobs/{blob.cid}", start, end)


class OriginSource:
    """A whole GGUF behind a server that answers ranges. Its header is read once, at the first use."""

    def __init__(self, client: httpx.AsyncClient, url: str, manifest: Manifest) -> None:
        self.name = url
        self._client = client
        self._manifest = manifest
        self._places: dict[str, Located] | None = None
        self._reading = anyio.Lock()

    async def manifest(self, cid: str) -> bytes:
        """See `Source`. A GGUF has none."""
        raise Missing

    async def read(self, blob: Blob, start: int, end: int) -> AsyncGenerator[bytes]:
        """See `Source`."""
        async with self._reading:
            if self._places is None:
                self._places = await self._header()
        at = 0
        for extent in self._places[blob.cid].extents:
            first, last = max(start - at, 0), min(end - at, extent.length)
            at += extent.length
            if first >= last:
                continue
            if extent.path is None:
                yield bytes(last - first)
                continue
            place = extent.offset + first, extent.offset + last
            async with aclosing(read_range(self._client, self.name, *place)) as parts:
                async for data in parts:
                    yield data

    async def _header(self) -> dict[str, Located]:
        """Where each blob lies in the remote file; SourceError if that is not the manifest's."""
        data, size = b"", self._manifest.file.size
        wanted = min(FIRST_HEADER + self._manifest.metadata.size + self._manifest.tokenizer.size, size)
        while True:
            async with aclosing(read_range(self._client, self.name, len(data), wanted)) as parts:
                async for part in parts:
                    data += part
            try:
                return in_file(self._manifest, parse_header(data, size), Path(self.name))
            except ContentError as error:
                if wanted >= min(size, MAX_HEADER) or "past the end" not in str(error):
                    raise SourceError(f"is not the file of this model: {error}") from None
            wanted = min(2 * wanted, size, MAX_HEADER)
