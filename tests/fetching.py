"""What the tests of fetching share: chunk servers here and in another process, and a child that fetches."""

import multiprocessing
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import anyio
import httpx

from intelnav.api.serve import serve
from intelnav.domain.advert import Address
from intelnav.domain.slice import LayerRange
from intelnav.net.chunks import ChunkLimits, ChunkService
from intelnav.net.fetch import fetch_slice
from intelnav.net.pace import Pace
from intelnav.net.progress import Progress
from intelnav.net.sources import PeerSource
from intelnav.store.blobs import Store
from intelnav.store.manifest import Manifest, manifest_of

# Forked from a process without threads, with everything imported.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.fetching"])


@asynccontextmanager
async def chunk_server(
    store: Store,
    limits: ChunkLimits = ChunkLimits(),  # noqa: B008
) -> AsyncIterator[tuple[ChunkService, Address]]:
    """A chunk server on loopback, served as a node does."""
    service = ChunkService(store, limits)
    async with anyio.create_task_group() as tasks:
        address = await tasks.start(
            lambda **started: serve(service.app(), listen=Address("127.0.0.1", 0), keep_alive=True, **started)
        )
        yield service, address
        tasks.cancel_scope.cancel()


@contextmanager
def chunk_process(root: Path, model: Path) -> Iterator[Address]:
    """A chunk server in another process, whose store is new and has a whole model in a file of the user's."""
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_give_out, args=(root, model, theirs), daemon=True)
    process.start()
    try:
        assert ours.poll(60)
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _give_out(root: Path, model: Path, told: "Connection[Any, Any]") -> None:
    async def run() -> None:
        with Store.open(root, None) as store:
            store.add_file(manifest_of(model), model, None)
            async with chunk_server(store) as (_, address):
                told.send(address)
                await anyio.sleep_forever()

    anyio.run(run, backend_options={"use_uvloop": True})


def fetcher(
    root: Path, manifest: bytes, layers: str, address: str, rate: int | None
) -> tuple[BaseProcess, "Connection[Any, Any]"]:
    """A process that fetches a slice from a peer. Over the connection come True when it starts, and then the path."""
    ours, theirs = processes.Pipe()
    process = processes.Process(
        target=_fetch, args=(root, manifest, layers, address, rate, theirs), daemon=True
    )
    process.start()
    theirs.close()
    return process, ours


def _fetch(
    root: Path, manifest: bytes, layers: str, address: str, rate: int | None, told: "Connection[Any, Any]"
) -> None:
    async def run() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            with Store.open(root, None) as store:
                told.send(True)
                path = await fetch_slice(
                    store,
                    Manifest.from_bytes(manifest),
                    LayerRange.parse(layers),
                    [PeerSource(client, Address.parse(address))],
                    Progress(),
                    pace=Pace(rate),
                )
                told.send(path)

    anyio.run(run, backend_options={"use_uvloop": True})
