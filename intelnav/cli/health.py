"""`python3 -m intelnav.cli.health`: whether the node here is ready, as a container's health check asks again and again.

A process of its own each time: it imports of the package nothing, and of Python's library what starts fast.
"""

import os
import socket
import sys
from pathlib import Path

DATA_DIR = "~/.local/share/intelnav"
SECONDS = 4.0


def health(data_dir: str) -> str | None:
    """What the node with this data folder says of its health; None if it is ready. OSError if none answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(SECONDS)
        link.connect(str(Path(data_dir).expanduser() / "control.sock"))
        link.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: link.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    ready = head.split(None, 2)[1:2] == [b"200"]
    return None if ready else body.decode(errors="replace").strip() or "no answer"


def main() -> None:
    """Exit status 0 if the node is ready; else 1 and why not."""
    try:
        reason = health(os.environ.get("INTELNAV_DATA_DIR", DATA_DIR))
    except OSError as error:
        reason = f"no node answers: {error}"
    if reason is not None:
        print(reason)
        sys.exit(1)


if __name__ == "__main__":
    main()
