"""Real swarms for tests: node processes on loopback, started by the sandbox's own code, asked over HTTP."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from intelnav.cli.swarm_files import Member, Swarm
from intelnav.cli.swarm_nodes import Plan, layer_ranges, start, stop
from intelnav.store.embedded import embedded_model

PROMPTS = (
    "The capital of France is",
    "def quicksort(numbers):\n",
    "Once upon a time, in a village by the sea, there lived",
)


@dataclass(frozen=True)
class Reply:
    """An answer as the API reports it."""

    text: str
    tokens: list[int]
    finish_reason: str
    chain: list[dict[str, Any]]
    timing: dict[str, float]


@dataclass(frozen=True)
class Sandbox:
    """A running swarm."""

    swarm: Swarm

    def client(self, member: Member | None = None) -> httpx.Client:
        """HTTP to a node's control socket; the entry's if none is named."""
        socket = str((member or self.swarm.entry).socket)
        return httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://node", timeout=120)

    def body(self, prompt: str, **more: Any) -> dict[str, Any]:
        """A request for raw, greedy text."""
        return {
            "model": self.swarm.model,
            "prompt": prompt,
            "temperature": 0,
            "max_tokens": 32,
            "intelnav": True,
            **more,
        }

    def complete(self, prompt: str, **more: Any) -> Reply:
        """Ask and wait for the whole answer."""
        with self.client() as client:
            response = client.post("/v1/completions", json=self.body(prompt, **more))
        assert response.status_code == 200, response.text
        data = response.json()
        choice, extra = data["choices"][0], data["intelnav"]
        return Reply(
            choice["text"], extra["tokens"], choice["finish_reason"], extra["chain"], extra["timing"]
        )

    def events(self, prompt: str, **more: Any) -> Generator[dict[str, Any]]:
        """Ask and yield each event as it comes; leaving early hangs up."""
        with (
            self.client() as client,
            client.stream("POST", "/v1/completions", json=self.body(prompt, stream=True, **more)) as response,
        ):
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line.removeprefix("data: "))

    def status(self, member: Member) -> dict[str, Any]:
        """A node's /status."""
        with self.client(member) as client:
            status: dict[str, Any] = client.get("/status").json()
        return status

    def workers(self, member: Member) -> list[psutil.Process]:
        """The worker processes of a node."""
        return psutil.Process(member.pid).children()


@contextmanager
def sandbox(
    root: Path, cuts: str = "8,15,22", *, dtype: str = "f32", head: str = "tail", model: Path | None = None
) -> Iterator[Sandbox]:
    """A swarm of nodes with one thread each, cut at `cuts`; it is gone afterwards."""
    root.mkdir(exist_ok=True)
    file = model or embedded_model()
    ranges = layer_ranges(file, tuple(map(int, cuts.split(","))), 0)
    swarm = start(root, Plan(file, ranges, dtype, "entry" if head == "entry" else "tail", 1), lambda _: None)
    try:
        yield Sandbox(swarm)
    finally:
        stop(swarm)
