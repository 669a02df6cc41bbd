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
from time import monotonic
from typing import Any

import anyio
import anyio.to_thread

from intelnav.domain.errors import Code, EngineError, IntelNavError, PeerError
from intelnav.domain.sampling import Sampling
from intelnav.engine.footprint import Footprint, footprint
from intelnav.engine.interface import Done, Forward, Output, SliceInfo, SliceSpec
from intelnav.engine.link import (
    Fields,
    FrameReader,
    Payload,
    pack_error,
    pack_forward,
    pack_load,
    unpack_error,
    unpack_info,
    unpack_output,
    write_frame,
)
from intelnav.store.model_file import describe

_Answered = Callable[[Fields | bytes, Payload], None]

_STDERR_TAIL = 2000

_ENVIRONMENT = {
    # Threads that spin after each graph would take the cores from the next hop on a shared machine.
    "OMP_WAIT_POLICY": "passive",
    "OPENBLAS_NUM_THREADS": "1",
    # An abort in ggml would otherwise start a debugger.
    "GGML_NO_BACKTRACE": "1",
}


@asynccontextmanager
async def load_slice(spec: SliceSpec) -> AsyncIterator["SliceProcess"]:
    """A worker with the slice loaded, ended on the way out.

    Raises ConfigError for a missing file or device, ContentError for a file that is no sound model, EngineError if
    the slice does not fit or cannot be loaded. A worker that dies later does not end the context: see `died`.
    """
    model = await anyio.to_thread.run_sync(describe, spec.path)
    need = footprint(model, spec)
    loop = asyncio.get_running_loop()
    engine = SliceProcess()
    ours, theirs = socket.socketpair()
    with theirs:
        await loop.create_unix_connection(lambda: engine, sock=ours)
        try:
            # It takes no time, and a worker that was only half started could not be waited for.
            with anyio.CancelScope(shield=True):
                process, child = await loop.subprocess_exec(
                    lambda: _Child(engine.fail),
                    *(sys.executable, "-P", "-m", "intelnav.engine.worker", str(theirs.fileno())),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    # Ctrl-C in a terminal is for the node alone.
                    start_new_session=True,
                    env=os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
        except BaseException:
            engine.hang_up()
            raise
    engine.pid = process.get_pid()
    try:
        await engine.load(spec, need, len(model.layers))
        yield engine
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        with anyio.CancelScope(shield=True):
            await child.exited.wait()
        process.close()
        engine.hang_up()


class _Child(asyncio.SubprocessProtocol):
    """Collects the end of what a worker writes to stderr, and says how it exited."""

    def __init__(self, on_exit: Callable[[str], None]) -> None:
        self.exited = anyio.Event()
        self._on_exit = on_exit
        self._stderr = b""

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.SubprocessTransport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._stderr = (self._stderr + data)[-_STDERR_TAIL:]

    def connection_lost(self, error: Exception | None) -> None:
        # Called once the process has exited and its stderr is read to the end.
        self.exited.set()
        status = self._transport.get_returncode() or 0
        how = f"signal {_signal_name(-status)}" if status < 0 else f"status {status}"
        last_words = self._stderr.decode(errors="replace").strip()
        self._on_exit(f"the worker ended with {how}" + (f": {last_words}" if last_words else ""))


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        # Most real-time signals have none.
        return str(number)


class SliceProcess(asyncio.Protocol):
    """A slice in its worker: a `SliceEngine`. Made by `load_slice`.

    `died` is set once the worker is gone; every call then raises EngineError with the reason.
    """

    info: SliceInfo
    pid: int

    def __init__(self) -> None:
        self.died = anyio.Event()
        self._death = ""
        self._reader = FrameReader()
        self._ids = count()
        self._pending: dict[int, _Answered] = {}
        self._open: set[int] = set()
        self._free: list[int] = []
        self._pieces: list[bytes] = []
        self._progress = 0.0

    @property
    def in_use(self) -> int:
        """See `SliceEngine`."""
        return len(self._open)

    @property
    def waiting(self) -> int:
        """See `SliceEngine`."""
        return len(self._pending)

    @property
    def death(self) -> str:
        """Why the worker is gone; empty while it lives."""
        return self._death

    @property
    def stuck_for(self) -> float:
        """Seconds for which calls have waited without any answer; 0 if none waits."""
        return monotonic() - self._progress if self._pending else 0.0

    async def load(self, spec: SliceSpec, need: Footprint, layers: int) -> None:
        """The first call: load the slice."""
        self.info = unpack_info(await self._call("load", pack_load(spec, need, layers)))
        self._free = list(range(self.info.sessions))
        if self.info.is_front:
            # All at once: asking for each would be one more round trip for every token of an answer.
            self._pieces = await self._value("pieces", {})

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
            self.close(sequence)
            raise
        return sequence

    def close(self, sequence: int) -> None:
        """See `SliceEngine`. The worker gets to it before anything that is asked later."""
        if sequence in self._open:
            self._open.remove(sequence)
            heappush(self._free, sequence)
            self._ask({"call": "close", "sequence": sequence})

    def submit(self, forward: Forward, done: Done) -> None:
        """See `SliceEngine`."""

        def answered(fields: Fields | bytes, payload: Payload) -> None:
            done(unpack_output(fields, payload) if isinstance(fields, bytes) else unpack_error(fields))

        self._ask(*pack_forward(forward), answered)

    async def forward(self, forward: Forward, hand_on: Callable[[Output], None] | None = None) -> Output:
        """See `SliceEngine`."""
        future: asyncio.Future[Output] = asyncio.get_running_loop().create_future()

        def done(outcome: Output | IntelNavError) -> None:
            if future.done():
                return
            try:
                if isinstance(outcome, IntelNavError):
                    raise outcome
                if hand_on is not None:
                    hand_on(outcome)
            except (IntelNavError, ValueError) as error:
                future.set_exception(error)
            else:
                future.set_result(outcome)

        self.submit(forward, done)
        return await future

    async def tokenize(self, text: str, special: bool) -> list[int]:
        """See `SliceEngine`."""
        tokens: list[int] = await self._value("tokenize", {"text": text, "special": special})
        return tokens

    def piece(self, token: int) -> bytes:
        """See `SliceEngine`."""
        return self._pieces[token]

    async def render(self, messages: list[dict[str, str]]) -> str:
        """See `SliceEngine`."""
        prompt: str = await self._value("render", {"messages": messages})
        return prompt

    def fail(self, reason: str) -> None:
        """The worker is gone or given up: every call that waits, and every later one, gets an EngineError.

        The first reason stands. A worker that still runs ends with the context of `load_slice`.
        """
        self._death = self._death or reason
        self.died.set()
        pending, self._pending = self._pending, {}
        for answered in pending.values():
            answered(pack_error(EngineError(self._death)), b"")

    def hang_up(self) -> None:
        """Close the link."""
        self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        """The link is open."""
        self._transport: asyncio.WriteTransport = transport

    def data_received(self, data: bytes) -> None:
        """Hand each answer to the call that waits for it."""
        self._progress = monotonic()
        for number, fields, payload in self._reader.feed(data):
            if (answered := self._pending.pop(number, None)) is not None:
                answered(fields, payload)

    async def _value(self, call: str, fields: Fields) -> Any:
        return (await self._call(call, fields))["value"]

    async def _call(self, call: str, fields: Fields) -> Fields:
        future = asyncio.get_running_loop().create_future()

        def answered(answer: Fields | bytes, _payload: Payload) -> None:
            if not future.done():
                future.set_result(answer)

        self._ask({"call": call, **fields}, answered=answered)
        answer: Fields = await future
        if "error" in answer:
            raise unpack_error(answer)
        return answer

    def _ask(self, fields: Fields | bytes, payload: Payload = b"", answered: _Answered | None = None) -> None:
        """Send a request; `answered` is called from the event loop, with an error if the worker is gone or dies."""
        number = next(self._ids)
        try:
            frame = write_frame(number, fields, payload)
        except UnicodeEncodeError:
            raise PeerError(
                Code.BAD_REQUEST, "the text holds lone surrogates, which UTF-8 cannot express"
            ) from None
        if answered is not None and self._death:
            asyncio.get_running_loop().call_soon(answered, pack_error(EngineError(self._death)), b"")
        elif answered is not None:
            if not self._pending:
                self._progress = monotonic()
            self._pending[number] = answered
        # A worker that has just died has closed the link before its exit is known; `fail` follows.
        if not self._transport.is_closing():
            self._transport.write(frame)
