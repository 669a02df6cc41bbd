"""`intelnav-node`: builds the parts of one node from its config file, wires them and runs them."""

import argparse
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
from httpx import AsyncClient

from intelnav import __version__
from intelnav.chain.contribution import Contribution
from intelnav.chain.entry import Entry
from intelnav.chain.hop import HopService
from intelnav.chain.ring import Rings
from intelnav.chain.traffic import Traffic
from intelnav.config import NodeConfig, load
from intelnav.controller.keeper import SliceKeeper
from intelnav.controller.shelf import Shelf
from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError, IntelNavError
from intelnav.engine.interface import SliceEngine
from intelnav.gauges import Gauges
from intelnav.keyfile import load_or_create
from intelnav.library import Library
from intelnav.logs import set_up_logging
from intelnav.net.chunks import ChunkService
from intelnav.net.peers import Peers
from intelnav.net.web import http_client
from intelnav.network import Network
from intelnav.outlook import Outlook
from intelnav.store.blobs import Store
from intelnav.store.catalog import shipped_catalog
from intelnav.wanted import ConfiguredPeers, Wanted

log = logging.getLogger("intelnav.node")


class Node:
    """One node's parts. `run` brings them up and keeps them until it is cancelled."""

    def __init__(self, config: NodeConfig, store: Store, client: AsyncClient) -> None:
        self._config = config
        self._started = time.monotonic()
        self._known = ConfiguredPeers(config)
        catalog = shipped_catalog()
        self._shelf = Shelf(store, catalog, self, client, config.store.rate)
        self._known.shelf = self._shelf
        self._library = Library(config, store, catalog, lambda: self._shelf.wanted)
        self._chunks = ChunkService(store)
        self._chunk_address: Address | None = None
        self._wanted = Wanted(config, self._shelf, lambda: self._network.slice_changed())
        self._identity = load_or_create(config.data_dir / "peer.key")
        self._network = Network(config, self._identity, self._known, self._wanted.hosted)
        self._traffic = Traffic()
        self._peers = Peers(self._identity, self._traffic, limit=config.limits.connections)
        self._traffic.rings = Rings(self._peers)

    async def run(self) -> None:
        """Serve until cancelled. Raises IntelNavError if the config asks for what cannot be."""
        # Imported here: what goes wrong before costs no web framework.
        from intelnav.api.app import build_app
        from intelnav.api.serve import serve

        config, peers, rings = self._config, self._peers, self._traffic.rings
        await self._wanted.check()
        entry = Entry(peers.own, self._wanted.entries, self._network, rings)
        outlook = Outlook(self._network, peers, rings, entry)
        gauges = Gauges(
            self.status,
            entry=entry,
            traffic=self._traffic,
            peers=peers,
            network=self._network,
            chunks=self._chunks,
            shelf=self._shelf,
        )
        app = build_app(entry, self.status, self.ready_to_answer, self._library, outlook, gauges)
        async with anyio.create_task_group() as tasks:
            # Within one machine there is nobody whom a rule would have to keep out.
            lax = config.network.is_local or config.limits.contribution == "off"
            hops = HopService(
                peers,
                self,
                tasks,
                idle_seconds=config.limits.idle_seconds,
                contribution=None if lax else Contribution(self._network, peers),
            )
            self._traffic.hops = hops
            try:
                if config.network.listen is not None:
                    await peers.listen(config.network.listen)
                await tasks.start(
                    lambda **started: serve(
                        app, socket=config.control_socket, listen=config.api.listen, **started
                    )
                )
                if config.chunks is not None:
                    self._chunk_address = await tasks.start(
                        lambda **started: serve(
                            self._chunks.app(), listen=config.chunks, keep_alive=True, **started
                        )
                    )
                await self._network.open(peers.address, self._chunk_address)
                for forever in (self._network.run, peers.keep_alive, hops.watch_idle, rings.watch_silence):
                    tasks.start_soon(forever)
                for keeper in self._wanted.keepers.values():
                    tasks.start_soon(keeper.run)
                log.info("node %s is up", peers.own)
                await anyio.sleep_forever()
            finally:
                hops.end_all("this node is stopping")
                await peers.close()

    async def chunk_servers(self, model: str) -> Sequence[Address]:
        """See `Providers`."""
        return await self._network.chunk_servers(model)

    def ready(self, model: str) -> Sequence[SliceEngine]:
        """The hosted slices of a model that can take sessions now; see `Hosting`."""
        hosted = self._wanted.hosted
        return [keeper.engine() for keeper in hosted if keeper.state == "ready" and keeper.cid() == model]

    def ready_to_answer(self) -> tuple[bool, str]:
        """Whether every slice of the config is loaded, or the first reason why not."""
        for keeper in self._wanted.keepers.values():
            if keeper.state != "ready":
                return False, f"{keeper}: {keeper.reason or keeper.state}"
        return True, ""

    def status(self) -> dict[str, Any]:
        """What `/status` shows; everything in it is plain JSON."""
        config, wanted = self._config, self._wanted
        entries = zip(config.entry, wanted.fronts, strict=True)
        return {
            "version": __version__,
            "peer": str(self._identity.peer),
            "role": config.role,
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "listen": str(config.network.listen) if config.network.listen else None,
            "chunks": {
                "listen": str(self._chunk_address) if self._chunk_address else None,
                "bytes_sent": self._chunks.bytes_sent,
            },
            "store": {"used_bytes": self._shelf.store.used(), "max_bytes": config.store.max_bytes},
            "slices": [_slice_status(keeper) for keeper in wanted.hosted],
            "entry": [
                {"name": settings.name, "head": settings.head, **_slice_status(front)}
                for settings, front in entries
            ],
            "peers": [
                {
                    "id": str(link.peer),
                    "address": link.remote,
                    "bytes_sent": link.bytes_sent,
                    "bytes_received": link.bytes_received,
                }
                for link in self._peers.links()
            ],
            "sessions": len(self._traffic.hops),
            "answers": len(self._traffic.rings),
        }


def _slice_status(keeper: SliceKeeper) -> dict[str, Any]:
    status: dict[str, Any] = {
        "model": keeper.name,
        "cid": keeper.model.cid if keeper.model is not None else None,
        "layers": str(keeper.layers),
        "state": keeper.state,
        "progress": keeper.progress.as_json() if keeper.progress is not None else None,
        "reason": keeper.reason,
        "failures": keeper.failures,
    }
    if keeper.state == "ready":
        engine = keeper.engine()
        status |= {
            "engine_class": engine.info.engine_class,
            "memory_estimate_bytes": engine.info.memory,
            "context": engine.info.context,
            "sessions": engine.info.sessions,
            "sequences": engine.in_use,
            "waiting": engine.waiting,
        }
    return status


@contextmanager
def _only_node(data_dir: Path) -> Iterator[None]:
    """Hold the data directory; raises ConfigError if another node does."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"data_dir {data_dir} is in use by another node: stop it, or give this one a data_dir of its own"
            ) from None
        yield


async def _run_until_signal(config: NodeConfig) -> None:
    async with anyio.create_task_group() as tasks:

        async def stop_on_signal() -> None:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for received in signals:
                    log.info("%s: stopping", signal.Signals(received).name)
                    tasks.cancel_scope.cancel()

        tasks.start_soon(stop_on_signal)
        with Store.open(config.data_dir / "store", config.store.max_bytes) as store:
            async with http_client() as client:
                await Node(config, store, client).run()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `intelnav-node`. Exit status 1 and one line on standard error for what a user can mend."""
    parser = argparse.ArgumentParser(prog="intelnav-node", description="Run one IntelNav node.")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML or TOML; defaults apply without one"
    )
    parser.add_argument("--version", action="version", version=f"intelnav-node {__version__}")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, os.environ)
        set_up_logging(config.log.level, config.log.format)
        with _only_node(config.data_dir):
            anyio.run(_run_until_signal, config, backend_options={"use_uvloop": True})
    except IntelNavError as error:
        sys.exit(f"intelnav-node: {error}")
    except OSError as error:
        sys.exit(f"intelnav-node: {error.filename or 'the system'}: {error.strerror or error}")
    except BaseExceptionGroup as group:
        expected, bugs = group.split(IntelNavError)
        if expected is None or bugs is not None:
            raise
        sys.exit("\n".join(f"intelnav-node: {error}" for error in _leaves(expected)))


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    main()
