"""`intelnav-node`: builds the parts of one node from its config file, wires them and runs them."""

import argparse
import gc
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup
from httpx import AsyncClient

from intelnav import __version__, status
from intelnav.chain.contribution import Contribution
from intelnav.chain.entry import Entry
from intelnav.chain.hop import HopService
from intelnav.chain.ring import Rings
from intelnav.chain.traffic import Traffic
from intelnav.choice import Choice
from intelnav.config import NodeConfig, load
from intelnav.config_file import ConfigFile
from intelnav.controller.kept import Kept
from intelnav.controller.loop import Controller
from intelnav.controller.shelf import Shelf
from intelnav.controller.state import SliceView
from intelnav.datadir import only_node
from intelnav.domain.advert import Address
from intelnav.domain.errors import IntelNavError
from intelnav.engine.interface import SliceEngine
from intelnav.events import Events
from intelnav.gauges import Gauges
from intelnav.keyfile import load_or_create
from intelnav.library import Library
from intelnav.logs import set_up_logging
from intelnav.net.chunks import ChunkService
from intelnav.net.peers import Peers
from intelnav.net.web import http_client
from intelnav.network import Network
from intelnav.notify import Notifier
from intelnav.outlook import Outlook
from intelnav.steering import Steering
from intelnav.stopping import drain, heed_signals
from intelnav.store.blobs import Store
from intelnav.store.catalog import shipped_catalog
from intelnav.wanted import ConfiguredPeers, check, entry_models

log = logging.getLogger("intelnav.node")


class Node:
    """One node's parts. `run` brings them up and keeps them until it is cancelled."""

    def __init__(self, file: ConfigFile, store: Store, client: AsyncClient) -> None:
        config = file.config
        self._file = file
        self._started = time.monotonic()
        self._known = ConfiguredPeers(config)
        catalog = shipped_catalog()
        self._shelf = Shelf(store, catalog, self, client, config.store.rate)
        self._known.shelf = self._shelf
        self._library = Library(config, store, catalog, lambda: self._shelf.wanted)
        self._chunks = ChunkService(store)
        self._chunk_address: Address | None = None
        self._identity = load_or_create(config.data_dir / "peer.key")
        self._events = Events()
        self._notifier = Notifier(os.environ)
        self._controller = Controller(
            self._shelf,
            announced=lambda: self._network.slice_changed(),
            ending=lambda engine, reason: self._traffic.hops.end_in(engine, reason),
            told=self._tell,
        )
        self._network = Network(config, self._identity, self._known, self._offered)
        self._traffic = Traffic()
        self._peers = Peers(self._identity, self._traffic, limit=config.limits.connections)
        self._traffic.rings = Rings(self._peers)
        self._entry = Entry(self._peers.own, (), self._network, self._traffic.rings)
        self._choice = Choice(config, self._peers.own, self._shelf, self._network, self._controller)
        self._steering = Steering(
            file, self._shelf, self._controller, self._events, self._apply, self._choice
        )

    async def run(self) -> None:
        """Serve until cancelled. Raises IntelNavError if the config asks for what cannot be."""
        # Imported here: what goes wrong before costs no web framework.
        from intelnav.api.app import build_app
        from intelnav.api.serve import serve

        config, peers, rings = self._file.config, self._peers, self._traffic.rings
        await check(config, self._shelf)
        outlook = Outlook(self._network, peers, rings, self._entry)
        gauges = Gauges(
            self.status,
            entry=self._entry,
            traffic=self._traffic,
            peers=peers,
            network=self._network,
            chunks=self._chunks,
            shelf=self._shelf,
        )
        app = build_app(
            self._entry, self.status, self.ready_to_answer, self._library, outlook, self._steering, gauges
        )
        async with anyio.create_task_group() as tasks:
            hops = HopService(peers, self, tasks, idle_seconds=config.limits.idle_seconds)
            self._traffic.hops = self._steering.hops = hops
            self._apply(config)
            self._steering.settle()
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
                self._start(tasks, hops)
                log.info("node %s is up", peers.own)
                self._events.add("node", "up")
                await anyio.sleep_forever()
            finally:
                hops.end_all("this node is stopping")
                await peers.close()

    def _start(self, tasks: TaskGroup, hops: HopService) -> None:
        for forever in (
            self._network.run,
            self._peers.keep_alive,
            hops.watch_idle,
            self._traffic.rings.watch_silence,
            self._controller.run,
            self._steering.run,
        ):
            tasks.start_soon(forever)
        tasks.start_soon(self._notifier.attend, self._summary)

    async def reread(self) -> None:
        """Read the config again, now."""
        with self._notifier.reloading():
            await self._steering.look()

    async def drain(self) -> None:
        """Take nothing new, and return once nothing is under way; for a node that is up."""
        self._events.add("node", "stopping")
        self._notifier.tell("STOPPING=1")
        if hasattr(self._traffic, "hops"):
            await drain(self._entry, self._traffic.hops, self._controller, self._steering)
        self._events.close()

    async def chunk_servers(self, model: str) -> Sequence[Address]:
        """See `Providers`."""
        return await self._network.chunk_servers(model)

    def ready(self, model: str) -> Sequence[SliceEngine]:
        """The hosted slices of a model that can take sessions now; see `Hosting`."""
        return [kept.engine for kept in self._of(model) if kept.engine is not None and kept.announced]

    def draining(self, model: str) -> Sequence[SliceEngine]:
        """The slices of a model that take no more sessions; see `Hosting`."""
        return [
            kept.engine for kept in self._of(model) if kept.engine is not None and kept.draining is not None
        ]

    def ready_to_answer(self) -> tuple[bool, str]:
        """Whether every slice of the config is loaded, or the first reason why not."""
        reason = "this node is stopping" if self._steering.stopping else status.unready(self._controller)
        if not reason and self._file.config.auto is not None and not self._choice.slices:
            reason = "slices: auto: none is picked yet"
        return not reason, reason

    def status(self) -> dict[str, Any]:
        """What `/status` shows; everything in it is plain JSON."""
        config, controller = self._file.config, self._controller
        return {
            "version": __version__,
            "peer": str(self._identity.peer),
            "role": config.role,
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "stopping": self._steering.stopping,
            "config": self._file.status(),
            "overrides": self._steering.overrides(),
            "listen": str(config.network.listen) if config.network.listen else None,
            "chunks": {
                "listen": str(self._chunk_address) if self._chunk_address else None,
                "bytes_sent": self._chunks.bytes_sent,
            },
            "store": {"used_bytes": self._shelf.store.used(), "max_bytes": config.store.max_bytes},
            "slices": status.slices(controller),
            "entry": status.entries(controller, config.entry),
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

    def _summary(self) -> str:
        """This node in one line."""
        answers = len(self._entry) + len(self._traffic.hops)
        return status.summary(self._controller, answers, self._steering.stopping, self._file.error)

    def _of(self, model: str) -> list[Kept]:
        return [
            kept
            for kept in self._controller.slices.values()
            if kept.model is not None and kept.model.cid == model
        ]

    def _offered(self) -> list[Kept]:
        return [kept for kept in self._controller.slices.values() if kept.announced]

    def _tell(self, kept: Kept, view: SliceView) -> None:
        """A slice has another state."""
        log.info("%s: %s%s", kept, view.state, f", {view.reason}" if view.reason else "")
        self._events.add(
            "slice",
            view.reason or view.state,
            model=kept.called,
            layers=str(kept.layers) if kept.layers is not None else None,
            state=view.state,
        )

    def _apply(self, config: NodeConfig) -> None:
        """Take over what of a config is not about slices, as far as it can change while this runs."""
        logging.getLogger().setLevel(config.log.level.upper())
        self._shelf.store.max_bytes = config.store.max_bytes
        self._shelf.limit(config.store.rate)
        self._library.config = config
        self._peers.limit = config.limits.connections
        self._network.reconfigure(config)
        self._choice.config = config
        self._choice.wake()
        self._entry.serves = entry_models(config, self._controller)
        hops = self._traffic.hops
        hops.idle_seconds = config.limits.idle_seconds
        # Within one machine there is nobody whom a rule would have to keep out.
        lax = config.network.is_local or config.limits.contribution == "off"
        hops.contribution = None if lax else hops.contribution or Contribution(self._network, self._peers)


async def _run(file: ConfigFile) -> None:
    with Store.open(file.config.data_dir / "store", file.config.store.max_bytes) as store:
        async with http_client() as client, anyio.create_task_group() as tasks:
            node = Node(file, store, client)
            tasks.start_soon(heed_signals, tasks.cancel_scope, node.reread, node.drain)
            await node.run()


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
        file = ConfigFile(options.config, os.environ, config)
        with only_node(config.data_dir):
            anyio.run(_run, file, backend_options={"use_uvloop": True})
        # The process ends: to collect all that was ever imported takes ten times as long as all the rest of it.
        gc.freeze()
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
