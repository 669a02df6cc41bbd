"""Token bytes to text: whole characters only, and stop strings cut out. Pure."""

import codecs
from collections.abc import Iterable


class TextStream:
    """Joins the bytes of tokens into text that is safe to show.

    A character split over tokens is held back until it is whole; bytes that never become one turn into U+FFFD.
    Text that may be the beginning of a stop string is held back until that is decided.
    """

    def __init__(self, stops: Iterable[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, data: bytes) -> str:
        """Text that is now certain. After a stop string, `stopped` is set and nothing more comes."""
        return self._take(self._decoder.decode(data), final=False)

    def finish(self) -> str:
        """What was still held back, at the end of the answer."""
        return self._take(self._decoder.decode(b"", final=True), final=True)

    def _take(self, text: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            keep = min(found)
        elif final:
            keep = len(self._held)
        else:
            keep = len(self._held) - max((_overlap(self._held, stop) for stop in self._stops), default=0)
        out, self._held = self._held[:keep], "" if self.stopped else self._held[keep:]
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
