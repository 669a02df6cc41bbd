"""The child process that runs one slice: one thread and one loop, requests in and answers out over a socket pair.

What it does for a single token is compiled; see `llama/native/loop.cpp`.
"""

import ctypes
import signal
import socket
import sys
from collections import deque
from typing import Any

from intelnav.domain.errors import IntelNavError
from intelnav.domain.sampling import Sampling
from intelnav.engine.batching import Call, next_batch
from intelnav.engine.chat_template import ChatTemplate
from intelnav.engine.link import (
    READ_BYTES,
    Fields,
    Frame,
    FrameReader,
    Payload,
    pack_error,
    pack_info,
    pack_output,
    unpack_forward,
    unpack_load,
    write_frame,
)
from intelnav.engine.llama import LlamaSlice, gpus
from intelnav.engine.probe import check_memory, choose_gpus, choose_threads

_PR_SET_PDEATHSIG = 1


class Worker:
    """Loads the slice that the first request on `link` names, then answers until the parent hangs up."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._reader = FrameReader()
        self._queue: deque[Call] = deque()
        self._is_loaded = False
        self._template: ChatTemplate | None = None

    def run(self) -> None:
        """Return when the parent is gone, or when it has been told why the slice cannot be loaded."""
        if not self._receive():
            return
        first = self._queue.popleft()
        try:
            self._engine = _load(first.arguments)
        except IntelNavError as error:
            self._answer(first, pack_error(error))
            return
        self._is_loaded = True
        self._answer(first, pack_info(self._engine.info))
        # What arrives during one decode can join the next.
        while self._receive():
            self._serve(next_batch(self._queue, self._engine.max_batch))

    def _receive(self) -> bool:
        """Queue all that has arrived, and wait only if nothing is queued; False once the parent has hung up."""
        while True:
            try:
                data = self._read()
            except BlockingIOError:
                return True
            if not data:
                return False
            self._queue.extend(map(_call, self._reader.feed(data)))
            if self._queue and len(data) < READ_BYTES:
                return True

    def _read(self) -> bytes:
        if self._queue:
            return self._link.recv(READ_BYTES, socket.MSG_DONTWAIT)
        if self._is_loaded and self._reader.is_between:
            return self._engine.serve(self._link.fileno())
        return self._link.recv(READ_BYTES)

    def _serve(self, batch: list[Call]) -> None:
        for call in batch:
            self._queue.remove(call)
        forwards = [call.forward for call in batch if call.forward is not None]
        if not forwards:
            self._serve_other(batch[0])
            return
        for call, result in zip(batch, self._engine.forward(forwards), strict=True):
            if isinstance(result, IntelNavError):
                self._answer(call, pack_error(result))
            else:
                self._answer(call, *pack_output(result))

    def _serve_other(self, call: Call) -> None:
        try:
            value = self._value(call.arguments)
        except IntelNavError as error:
            self._answer(call, pack_error(error))
        else:
            self._answer(call, {"value": value})

    def _value(self, arguments: Fields) -> Any:
        match arguments["call"]:
            case "open":
                sampling = arguments["sampling"]
                return self._engine.open(arguments["sequence"], sampling and Sampling(**sampling))
            case "close":
                return self._engine.close(arguments["sequence"])
            case "tokenize":
                return self._engine.vocabulary.tokenize(arguments["text"], arguments["special"])
            case "pieces":
                return self._engine.vocabulary.pieces()
            case "render":
                if self._template is None:
                    self._template = ChatTemplate(*self._engine.vocabulary.chat_template())
                return self._template.render(arguments["messages"])
        raise AssertionError(f"{arguments['call']!r} is no call")

    def _answer(self, call: Call, fields: Fields | bytes, payload: Payload = b"") -> None:
        self._link.sendall(write_frame(call.number, fields, payload))


def _call(frame: Frame) -> Call:
    number, fields, payload = frame
    if isinstance(fields, bytes):
        forward = unpack_forward(fields, payload)
        return Call(number, {}, forward.sequence, forward)
    return Call(number, fields, fields.get("sequence"))


def _load(arguments: Fields) -> LlamaSlice:
    spec, need, layers = unpack_load(arguments)
    chosen = choose_gpus(spec.device, spec.gpu_layers, gpus)
    check_memory(need, chosen, share=min(1.0, spec.gpu_layers / layers) if spec.gpu_layers >= 0 else 1.0)
    return LlamaSlice(spec, chosen, choose_threads(spec.threads), need.total)


def _die_with_parent() -> None:
    # A closed link ends the loop, but not a decode that hangs.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(descriptor: int) -> None:
    """Run a worker on the socket that the parent left open at `descriptor`."""
    _die_with_parent()
    # A service manager signals every process of the node; the node is the one to say when this one ends.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as link:
        Worker(link).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
