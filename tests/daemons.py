"""Node daemons for tests: each with a config of its own, in a folder of its own, asked over its control socket."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from intelnav.keyfile import load_or_create
from tests.waiting import until

Json = dict[str, Any]


@dataclass
class Daemon:
    """A node's config and data in `folder`, and its process while it runs, in a network namespace if one is named.

    `variables` are set for the process.
    """

    folder: Path
    namespace: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def peer(self) -> str:
        """Its id; the key is made if there is none yet."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(load_or_create(self.data / "peer.key").peer)

    def configure(self, **settings: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {"data_dir": "./data", "backend": {"device": "cpu", "threads": 1}, **settings}
        # In one step: a running node reads it again.
        draft = self.folder / ".node.yaml"
        draft.write_text(yaml.safe_dump(settings))
        draft.replace(self.folder / "node.yaml")

    def start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("INTELNAV_")}
        command = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        command += [sys.executable, "-m", "intelnav.node", "--config", str(self.folder / "node.yaml")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment | self.variables
            )

    def client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.data / "control.sock"))
        return httpx.Client(transport=transport, base_url="http://node", timeout=60)

    def get(self, path: str) -> Json | None:
        """What the node answers, or None if it does not."""
        try:
            with self.client() as client:
                answer: Json = client.get(path).json()
                return answer
        except httpx.TransportError:
            return None

    def status(self) -> Json:
        found = self.get("/status")
        assert found is not None, self.log
        return found

    def until(self, condition: Callable[[Json], bool], seconds: float = 60) -> Json:
        """The status once it is as wanted; fails with the log if the node ends, or does not come to it."""
        last: Json = {}

        def holds() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            last.update(self.get("/status") or {})
            return bool(last) and condition(last)

        try:
            until(holds, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{last}\n{self.log}") from None
        return last

    def until_ready(self, seconds: float = 60) -> Json:
        """The status once each slice is loaded."""
        return self.until(
            lambda status: all(part["state"] == "ready" for part in (*status["slices"], *status["entry"])),
            seconds,
        )

    def ask(self, prompt: str, model: str, tokens: int) -> Json:
        """A raw, greedy completion, with what the node tells of it."""
        body = {
            "model": model,
            "prompt": prompt,
            "temperature": 0,
            "max_tokens": tokens,
            "intelnav": True,
        }
        with self.client() as client:
            response = client.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        answer: Json = response.json()
        return answer

    def kill(self) -> None:
        """End the node and its workers, without a chance to clean up."""
        if self.process is not None and self.process.poll() is None:
            workers = psutil.Process(self.process.pid).children(recursive=True)
            self.process.send_signal(signal.SIGKILL)
            for worker in workers:
                worker.kill()
        self._wait()

    def stop(self) -> int:
        """Tell the node to leave; returns its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self._wait()

    def _wait(self) -> int:
        status = self.process.wait(30) if self.process is not None else 0
        self.process = None
        return status


@contextmanager
def daemons(folder: Path, *names: str) -> Iterator[list[Daemon]]:
    """Daemons that are not running yet; none runs afterwards."""
    made = [Daemon(folder / name) for name in names]
    try:
        yield made
    finally:
        for daemon in made:
            daemon.kill()
