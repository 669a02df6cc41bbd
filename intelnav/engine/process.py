"""The node's side of a worker: starts it, matches answers to calls, and notices at once when it dies."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from heapq import heappop, heappush
from itertools import count
from signal import Signals
from typing import Any

import anyio
import anyio.to_thread

from intelnav.domain.errors import Code, EngineError, PeerError
from intelnav.domain.sampling import Sampling
from intelnav.engine.interface import Forward, Output, SliceInfo, SliceSpec
from intelnav.engine.link import (
    FrameReader,
    Message,
    Payload,
    frame,
    pack_forward,
    pack_load,
    unpack_error,
    unpack_info,
    unpack_output,
)
from intelnav.engine.probe import Footprint, compute_bytes
from intelnav.store.footprint import CELLS, cache_bytes, weights_bytes
from intelnav.store.gguf import padded
from intelnav.store.model_file import ModelFile, describe

_STDERR_TAIL = 2000

_ENVIRONMENT = {
    # Threads that spin after each graph would take the cores from the next hop on a shared machine.
    "OMP_WAIT_POLICY": "passive",
    "OPENBLAS_NUM_THREADS": "1",
    # An abort in ggml would otherwise start a debugger.
    "GGML_NO_BACKTRACE": "1",
}


def footprint(model: ModelFile, spec: SliceSpec) -> Footprint:
    """What loading `model` as `spec` says will take; ContentError if its header does not tell."""
    vocabulary = max(
        tensor.shape[-1] for tensor in model.header.tensors if tensor.name == "token_embd.weight"
    )
    return Footprint(
        weights_bytes(model, model.layers),
        cache_bytes(model, model.layers, padded(spec.context, CELLS), spec.sessions),
        compute_bytes(model.width, vocabulary, max(spec.max_rows, spec.sessions), spec.context),
    )


@asynccontextmanager
async def load_slice(spec: SliceSpec) -> AsyncIterator["SliceProcess"]:
    """A worker with the slice loaded, ended on the way out.

    Raises ConfigError for a missing file or device, ContentError for a file that is no sound model, EngineError if
    the slice does not fit or cannot be loaded. A worker that dies later does not end the context: see `died`.
    """
    model = await anyio.to_thread.run_sync(describe, spec.path)
    need = footprint(model, spec)
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        process, child = await loop.subprocess_exec(
            _Child,
            *(sys.executable, "-P", "-m", "intelnav.engine.worker", str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            # Ctrl-C in a terminal is for the node alone.
            start_new_session=True,
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    try:
        _, engine = await loop.create_unix_connection(lambda: SliceProcess(process.get_pid()), sock=ours)
        child.on_exit = engine.fail
        try:
            await engine.load(spec, need, len(model.layers))
            yield engine
        finally:
            engine.hang_up()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        with anyio.CancelScope(shield=True):
            await child.exited.wait()
        process.close()


class _Child(asyncio.SubprocessProtocol):
    """Collects the end of what a worker writes to stderr, and says how it exited."""

    def __init__(self) -> None:
        self.exited = anyio.Event()
        self.on_exit: Callable[[str], None] | None = None
        self._stderr = b""

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.SubprocessTransport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._stderr = (self._stderr + data)[-_STDERR_TAIL:]

    def connection_lost(self, error: Exception | None) -> None:
        # Called once the process has exited and its stderr is read to the end.
        status = self._transport.get_returncode() or 0
        how = f"signal {Signals(-status).name}" if status < 0 else f"status {status}"
        last_words = self._stderr.decode(errors="replace").strip()
        self.exited.set()
        if self.on_exit is not None:
            self.on_exit(f"the worker ended with {how}" + (f": {last_words}" if last_words else ""))


class SliceProcess(asyncio.Protocol):
    """A slice in its worker: a `SliceEngine`. Made by `load_slice`.

    `died` is set once the worker is gone; every call then raises EngineError with the reason.
    """

    info: SliceInfo

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.died = anyio.Event()
        self._death = ""
        self._reader = FrameReader()
        self._ids = count()
        self._pending: dict[int, asyncio.Future[tuple[Message, Payload]]] = {}
        self._open: set[int] = set()
        self._free: list[int] = []

    @property
    def in_use(self) -> int:
        """See `SliceEngine`."""
        return len(self._open)

    @property
    def death(self) -> str:
        """Why the worker is gone; empty while it lives."""
        return self._death

    async def load(self, spec: SliceSpec, need: Footprint, layers: int) -> None:
        """The first call: load the slice."""
        fields, _ = await self._call("load", pack_load(spec, need, layers))
        self.info = unpack_info(fields)
        self._free = list(range(self.info.sessions))

    async def open(self, sampling: Sampling | None) -> int:
        """See `SliceEngine`. The lowest free sequence is taken: neighbours share a micro-batch."""
        if not self._free:
            raise PeerError(
                Code.BUSY, f"all {self.info.sessions} sessions of layers {self.info.layers} are taken"
            )
        sequence = heappop(self._free)
        self._open.add(sequence)
        try:
            await self._call("open", {"sequence": sequence, "sampling": sampling and asdict(sampling)})
        except BaseException:
            await self.close(sequence)
            raise
        return sequence

    async def close(self, sequence: int) -> None:
        """See `SliceEngine`. Does not wait: the worker gets to it before anything that is asked later."""
        if sequence in self._open:
            self._open.remove(sequence)
            heappush(self._free, sequence)
            self._write("close", {"sequence": sequence}, b"")

    async def forward(self, forward: Forward) -> Output:
        """See `SliceEngine`."""
        return unpack_output(*await self._call("forward", *pack_forward(forward)))

    async def tokenize(self, text: str, special: bool) -> list[int]:
        """See `SliceEngine`."""
        tokens: list[int] = await self._value("tokenize", {"text": text, "special": special})
        return tokens

    async def pieces(self, tokens: tuple[int, ...]) -> list[bytes]:
        """See `SliceEngine`."""
        pieces: list[bytes] = await self._value("pieces", {"tokens": tokens})
        return pieces

    async def render(self, messages: list[dict[str, str]]) -> str:
        """See `SliceEngine`."""
        prompt: str = await self._value("render", {"messages": messages})
        return prompt

    def fail(self, reason: str) -> None:
        """The worker is gone: every call that waits, and every later one, raises EngineError."""
        self._death = reason
        self.died.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(EngineError(reason))

    def hang_up(self) -> None:
        """Close the link."""
        self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        """The link is open."""
        self._transport: asyncio.WriteTransport = transport

    def data_received(self, data: bytes) -> None:
        """Hand each answer to the call that waits for it."""
        for fields, payload in self._reader.feed(data):
            future = self._pending.get(fields["id"])
            # A caller that was cancelled has left no future, or a done one.
            if future is not None and not future.done():
                future.set_result((fields, payload))

    async def _value(self, call: str, fields: Message) -> Any:
        answer, _ = await self._call(call, fields)
        return answer["value"]

    async def _call(self, call: str, fields: Message, payload: Payload = b"") -> tuple[Message, Payload]:
        if self._death:
            raise EngineError(self._death)
        number = self._write(call, fields, payload)
        self._pending[number] = future = asyncio.get_running_loop().create_future()
        try:
            answer, payload = await future
        finally:
            del self._pending[number]
        if "error" in answer:
            raise unpack_error(answer)
        return answer, payload

    def _write(self, call: str, fields: Message, payload: Payload) -> int:
        number = next(self._ids)
        # A worker that has just died has closed the link before its exit is known; `fail` follows.
        if not self._transport.is_closing():
            self._transport.writelines(frame({"id": number, "call": call, **fields}, payload))
        return number
