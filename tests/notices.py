"""What a process tells systemd, heard on a real socket."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.waiting import until


class Notices:
    """The socket that NOTIFY_SOCKET names, and what came through it, as one list of lines for each message."""

    def __init__(self, receiver: socket.socket, variable: str) -> None:
        self.variable = variable
        self.messages: list[list[str]] = []
        self._receiver = receiver

    def lines(self) -> list[str]:
        """Every line so far."""
        while True:
            try:
                data = self._receiver.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return [line for message in self.messages for line in message]
            self.messages.append(data.decode().split("\n"))

    def until(self, line: str, count: int = 1, seconds: float = 30) -> None:
        """Return once a line came so often; fail with what came if it does not."""
        try:
            until(lambda: self.lines().count(line) >= count, seconds)
        except AssertionError as error:
            raise AssertionError(f"{line}: {error}\n{self.messages}") from None

    def silent(self, line: str, seconds: float) -> bool:
        """Whether a line does not come again within a time."""
        before = self.lines().count(line)
        time.sleep(seconds)
        return self.lines().count(line) == before


@contextmanager
def notices(name: str) -> Iterator[Notices]:
    """Listen at a path, or at an abstract name, which begins with @."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:] if name.startswith("@") else name)
        yield Notices(receiver, name)
