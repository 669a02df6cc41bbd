"""The baselines as child processes."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench import rpc

START_SECONDS = 30
SERVERS = 3


@dataclass(frozen=True)
class Run:
    """What one prompt and its answer took. `prefill` includes the first token; rates are tokens per second."""

    given: int
    prefill: float
    decode: float
    tokens: list[int]

    @property
    def prefill_rate(self) -> float:
        return self.given / self.prefill

    @property
    def decode_rate(self) -> float:
        return (len(self.tokens) - 1) / self.decode


class Baseline:
    """A running `tests.bench.whole`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, prompt: str, count: int) -> Run:
        """Greedy tokens after a prompt; waits for them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"prompt": prompt, "count": count}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a baseline's process ended; see build/bench-whole.log")
        return Run(**json.loads(line))


@contextmanager
def one_process(model: Path, threads: int) -> Iterator[Baseline]:
    """The whole model in one process."""
    with _child("whole", str(model), str(threads), "0", python_path="") as process:
        yield Baseline(process)


@contextmanager
def over_rpc(model: Path, threads: int, remote_layers: int) -> Iterator[Baseline]:
    """The last `remote_layers` layers on three RPC servers; the head is on the last one and counts as a layer."""
    rpc.build()
    endpoints = [f"127.0.0.1:{port}" for port in _free_ports(SERVERS)]
    with ExitStack() as stack:
        for endpoint in endpoints:
            stack.enter_context(_child("rpc", endpoint, str(threads), python_path=str(rpc.VARIANT)))
        for endpoint in endpoints:
            _wait_for(endpoint)
        arguments = [str(model), str(threads), str(remote_layers), *endpoints]
        yield Baseline(stack.enter_context(_child("whole", *arguments, python_path=str(rpc.VARIANT))))


@contextmanager
def _child(module: str, *arguments: str, python_path: str) -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    logs = Path("build")
    logs.mkdir(exist_ok=True)
    with (
        (logs / f"bench-{module}.log").open("a") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log if module == "rpc" else subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONPATH": python_path},
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _wait_for(endpoint: str) -> None:
    host, _, port = endpoint.partition(":")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, int(port))):
            return
        time.sleep(0.05)
    raise SystemExit(f"no RPC server at {endpoint} within {START_SECONDS} s; see build/bench-rpc.log")
