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
from anyio import to_thread

from intelnav import __version__
from intelnav.chain.entry import Entry, EntryModel
from intelnav.chain.hop import HopService
from intelnav.chain.ring import Rings
from intelnav.config import EntryConfig, NodeConfig, PeerConfig, load
from intelnav.controller.keeper import SliceKeeper, WantedSlice
from intelnav.domain.advert import Advert
from intelnav.domain.errors import ConfigError, IntelNavError
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceEngine, SliceSpec
from intelnav.keyfile import load_or_create
from intelnav.logs import set_up_logging
from intelnav.net.connection import Connection
from intelnav.net.discovery import StaticDiscovery
from intelnav.net.peers import Peers
from intelnav.store.manifest import manifest_of
from intelnav.store.model_file import ModelFile, describe
from intelnav.wire.messages import (
    AbortSession,
    Hidden,
    Message,
    SessionAck,
    Token,
)

log = logging.getLogger("intelnav.node")


class Node:
    """One node's parts. `run` brings them up and keeps them until it is cancelled."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.started = time.monotonic()
        self.identity = load_or_create(config.data_dir / "peer.key")
        self.peers = Peers(self.identity, self, limit=config.limits.connections)
        self.rings = Rings(self.peers)
        self.keepers: dict[tuple[str, LayerRange], SliceKeeper] = {}
        self.hosted: list[SliceKeeper] = []
        self.entries: list[EntryModel] = []
        self.entry: Entry
        self.hops: HopService
        self._models: dict[Path, tuple[str, ModelFile]] = {}

    async def run(self) -> None:
        """Serve until cancelled. Raises IntelNavError if the config asks for what cannot be."""
        from intelnav.api.app import build_app
        from intelnav.api.serve import serve

        config = self.config
        for wanted in config.slices:
            self.hosted.append(await self._keeper(wanted.model, wanted.layers))
        adverts = [advert for peer in config.network.peers for advert in await self._adverts(peer)]
        discovery = StaticDiscovery(adverts)
        for entry in config.entry:
            self.entries.append(await self._entry_model(entry))
        self.entry = Entry(self.identity.peer, self.entries, discovery, self.rings)
        async with anyio.create_task_group() as tasks:
            self.hops = HopService(self.peers, self, tasks, idle_seconds=config.limits.idle_seconds)
            try:
                if config.network.listen is not None:
                    await self.peers.listen(config.network.listen)
                app = build_app(self.entry, self.status, self.ready_to_answer)
                await tasks.start(
                    lambda **kw: serve(app, socket=config.control_socket, listen=config.api.listen, **kw)
                )
                tasks.start_soon(self.peers.keep_alive)
                tasks.start_soon(self.hops.watch_idle)
                tasks.start_soon(self.rings.watch_silence)
                for keeper in self.keepers.values():
                    tasks.start_soon(keeper.run)
                log.info("node %s is up", self.identity.peer)
                await anyio.sleep_forever()
            finally:
                self.hops.end_all("this node is stopping")
                await self.peers.close()

    def ready(self, model: str) -> Sequence[SliceEngine]:
        """The hosted slices of a model that can take sessions now; see `Hosting`."""
        return [k.engine() for k in self.hosted if k.wanted.model == model and k.state == "ready"]

    def ready_to_answer(self) -> tuple[bool, str]:
        """Whether every slice of the config is loaded, or the first reason why not."""
        for keeper in self.keepers.values():
            if keeper.state != "ready":
                return (
                    False,
                    f"layers {keeper.wanted.layers} of {keeper.wanted.name}: {keeper.reason or keeper.state}",
                )
        return True, ""

    def on_open(self, link: Connection) -> None:
        """A peer connected; nothing to do until it speaks."""

    def on_message(self, link: Connection, message: Message) -> None:
        """Hand a message to the side of the chain that it is for."""
        match message:
            case SessionAck() | Token() | Hidden():
                self.rings.on_message(link, message)
            case AbortSession(session=session) if self.rings.knows(session):
                self.rings.on_message(link, message)
            case _:
                self.hops.on_message(link, message)

    def on_lost(self, link: Connection) -> None:
        """A link is gone, and what depended on it with it."""
        self.rings.on_lost(link)
        self.hops.on_lost(link)

    def status(self) -> dict[str, Any]:
        """What `/status` shows; everything in it is plain JSON."""
        config = self.config
        return {
            "version": __version__,
            "peer": str(self.identity.peer),
            "role": config.role,
            "uptime_seconds": round(time.monotonic() - self.started, 1),
            "listen": str(config.network.listen) if config.network.listen else None,
            "slices": [_slice_status(keeper) for keeper in self.hosted],
            "entry": [
                {"name": entry.name, "head": settings.head}
                | _slice_status(self.keepers[entry.id, settings.layers])
                for entry, settings in zip(self.entries, config.entry, strict=True)
            ],
            "peers": [
                {
                    "id": str(link.peer),
                    "address": link.remote,
                    "connected": link.alive,
                    "bytes_sent": link.bytes_sent,
                    "bytes_received": link.bytes_received,
                }
                for link in self.peers.links()
            ],
            "sessions": len(self.hops),
            "answers": len(self.rings),
        }

    async def _keeper(self, path: Path, layers: LayerRange) -> SliceKeeper:
        """The keeper of these layers; the same one for a slice that is wanted twice."""
        model, file = await self._model(path)
        if not file.layers.covers(layers):
            raise ConfigError(
                f"layers {layers} of {path}: the file holds {file.layers}; choose a range within"
            )
        key = model, layers
        if key not in self.keepers:
            limits, backend = self.config.limits, self.config.backend
            room = SliceSpec(
                path,
                sessions=limits.sessions,
                context=min(limits.context, file.context),
                max_rows=limits.rows,
                device=backend.device,
                gpu_layers=backend.gpu_layers,
                threads=backend.threads,
            )
            wanted = WantedSlice(model, file.name, path, layers, room)
            self.keepers[key] = SliceKeeper(wanted, self.config.data_dir / "slices")
        return self.keepers[key]

    async def _entry_model(self, settings: EntryConfig) -> EntryModel:
        model, file = await self._model(settings.model)
        front = await self._keeper(settings.model, settings.layers)
        head = None
        if settings.head == "entry" and settings.layers.end < file.blocks:
            # The head rides on the last layer: llama.cpp loads no model without one (docs/adr/0003).
            head = await self._keeper(settings.model, LayerRange(file.blocks - 1, file.blocks))
        return EntryModel(
            model,
            settings.name,
            self.config.network.dtype,
            front.engine,
            head.engine if head is not None else None,
        )

    async def _adverts(self, peer: PeerConfig) -> list[Advert]:
        slices: dict[str, list[LayerRange]] = {}
        for offer in peer.slices:
            model = offer.model if isinstance(offer.model, str) else (await self._model(offer.model))[0]
            slices.setdefault(model, []).append(offer.layers)
        return [Advert(peer.id, (peer.address,), model, tuple(ranges)) for model, ranges in slices.items()]

    async def _model(self, path: Path) -> tuple[str, ModelFile]:
        """The CID and the header of a model file; a slice carries the CID of the model that it was cut from."""
        if path not in self._models:
            file = await to_thread.run_sync(describe, path)
            self._models[path] = file.model or (await to_thread.run_sync(manifest_of, path)).cid, file
        return self._models[path]


def _slice_status(keeper: SliceKeeper) -> dict[str, Any]:
    wanted = keeper.wanted
    status: dict[str, Any] = {
        "model": wanted.name,
        "cid": wanted.model,
        "layers": str(wanted.layers),
        "state": keeper.state,
        "reason": keeper.reason,
        "failures": keeper.failures,
    }
    if keeper.state == "ready":
        engine = keeper.engine()
        info = engine.info
        status |= {
            "engine_class": info.engine_class,
            "memory_bytes": info.memory,
            "context": info.context,
            "sessions": info.sessions,
            "sequences": engine.in_use,
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
        await Node(config).run()


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
