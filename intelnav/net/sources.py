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
from intelnav.store.gguf import encode_header
from intelnav.store.gguf_reader import parse_header
from intelnav.store.manifest import MAX_MANIFEST, Blob, Manifest


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
    """A node's chunk server. It has no reason to send anybody elsewhere, so redirects are not followed."""

    def __init__(self, client: httpx.AsyncClient, address: Address) -> None:
        self.name = f"http://{address}"
        self._client = client

    async def manifest(self, cid: str) -> bytes:
        """See `Source`."""
        url = f"{self.name}/v1/models/{cid}/manifest"
        return await read_whole(self._client, url, MAX_MANIFEST, redirects=0)

    def read(self, blob: Blob, start: int, end: int) -> AsyncGenerator[bytes]:
        """See `Source`."""
        url = f"{self.name}/v1/blobs/{blob.cid}"
        return read_range(self._client, url, start, end, redirects=0)


class OriginSource:
    """A whole GGUF behind a server that answers ranges. Its header is read once, at the first use."""

    def __init__(self, client: httpx.AsyncClient, url: str, manifest: Manifest) -> None:
        self.name = url
        self._client = client
        self._manifest = manifest
        self._header = b""
        self._places: dict[str, Located] = {}
        self._reading = anyio.Lock()

    async def manifest(self, cid: str) -> bytes:
        """See `Source`. A GGUF has none."""
        raise Missing

    async def read(self, blob: Blob, start: int, end: int) -> AsyncGenerator[bytes]:
        """See `Source`."""
        async with self._reading:
            if not self._places:
                await self._read_header()
        at = 0
        for extent in self._places[blob.cid].extents:
            first, last = extent.offset + max(start - at, 0), extent.offset + min(end - at, extent.length)
            at += extent.length
            if first >= last:
                continue
            if extent.path is None:
                yield bytes(last - first)
            elif last <= len(self._header):
                yield self._header[first:last]
            else:
                async with aclosing(self._range(first, last)) as parts:
                    async for data in parts:
                        yield data

    async def _read_header(self) -> None:
        """Learn where each blob lies in the remote file; SourceError if that is not the manifest's."""
        size, header = self._manifest.file.size, bytearray()
        # Just as much as the file that the manifest was made from has.
        async with aclosing(self._range(0, min(size, _header_bytes(self._manifest)))) as parts:
            async for data in parts:
                header += data
        self._header = bytes(header)
        try:
            self._places = in_file(self._manifest, parse_header(self._header, size), Path(self.name))
        except ContentError as error:
            raise SourceError(f"is not the file of this model: {error}") from None

    async def _range(self, start: int, end: int) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(read_range(self._client, self.name, start, end)) as parts:
                async for data in parts:
                    yield data
        except Missing:
            # It is one file: without it there is nothing else to ask for.
            raise SourceError("is not there") from None


def _header_bytes(manifest: Manifest) -> int:
    tensors = (tensor for entry in manifest.bundles for tensor in entry.bundle.tensors)
    return len(encode_header({}, tensors, 1)) + manifest.metadata.size + manifest.tokenizer.size
