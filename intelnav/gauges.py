"""What a node shows of itself at `/metrics`, read from its parts when it is asked for."""

from collections.abc import Callable
from typing import Any, get_args

from intelnav.api.metrics import Figures, SliceFigures
from intelnav.chain.entry import Entry
from intelnav.chain.traffic import Traffic
from intelnav.controller.shelf import Shelf
from intelnav.controller.state import State
from intelnav.net.chunks import ChunkService
from intelnav.net.peers import Peers
from intelnav.network import Network

Json = dict[str, Any]


class Gauges:
    """See `api.metrics.Metered`. `status` is what `/status` shows; `traffic` has its parts before the first scrape."""

    def __init__(
        self,
        status: Callable[[], Json],
        *,
        entry: Entry,
        traffic: Traffic,
        peers: Peers,
        network: Network,
        chunks: ChunkService,
        shelf: Shelf,
    ) -> None:
        self._status = status
        self._entry = entry
        self._traffic = traffic
        self._peers = peers
        self._network = network
        self._chunks = chunks
        self._shelf = shelf

    def figures(self) -> Figures:
        """All figures as of now."""
        status = self._status()
        entry, hops = self._entry.figures, self._traffic.hops
        dht = self._network.dht
        return Figures(
            role=status["role"],
            peer=status["peer"],
            uptime_seconds=status["uptime_seconds"],
            states=get_args(State),
            slices=tuple(
                _slice(kind, part)
                for kind, parts in (("hosted", status["slices"]), ("entry", status["entry"]))
                for part in parts
            ),
            answers=len(self._traffic.rings),
            answers_begun=entry.answers,
            answer_failures=entry.failures,
            tokens=entry.tokens,
            prefill=entry.prefill,
            decode=entry.decode,
            sessions=len(hops),
            sessions_opened=hops.figures.opened,
            sessions_ended=hops.figures.ended,
            forwards=hops.figures.forwards,
            rows=hops.figures.rows,
            compute=hops.figures.compute,
            peers=len({link.peer for link in self._peers.links()}),
            link_bytes_sent=self._peers.bytes_sent,
            link_bytes_received=self._peers.bytes_received,
            chunk_bytes_sent=self._chunks.bytes_sent,
            chunk_bytes_received=self._shelf.bytes_fetched,
            dht_contacts=len(dht.contacts()),
            lookups=dht.lookups,
            lookups_unanswered=dht.lookups_unanswered,
            datagrams_sent=dht.socket.datagrams_sent,
            datagrams_received=dht.socket.datagrams_received,
            datagram_bytes_sent=dht.socket.bytes_sent,
            datagram_bytes_received=dht.socket.bytes_received,
            seen=dht.reach.seen_at is not None,
            store_bytes=status["store"]["used_bytes"],
            store_max_bytes=status["store"]["max_bytes"],
        )


def _slice(kind: str, part: Json) -> SliceFigures:
    """One slice as the status has it. What is not loaded has no figures of a worker."""
    return SliceFigures(
        kind,
        part["model"],
        str(part["layers"]),
        part["state"],
        part["failures"],
        part.get("sequences"),
        part.get("waiting"),
        part.get("memory_estimate_bytes"),
    )
