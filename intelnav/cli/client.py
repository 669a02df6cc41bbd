"""The node's HTTP API as the commands use it."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from intelnav.domain.errors import IntelNavError

DATA_DIR = "~/.local/share/intelnav"
SOCKET = "control.sock"

# An answer may wait for its turn and for a long prompt; a node gives up on a silent peer much earlier.
_TIMEOUT = httpx.Timeout(10, read=600)
_SWARM_SECONDS = 20.0

Json = dict[str, Any]


class NodeError(IntelNavError):
    """No node answers, or a node answered with an error, whose `code` this carries."""

    def __init__(self, message: str, code: str = "node") -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Reply:
    """An answer on its way: iterate over its text. What the fields hold is whole once that has ended.

    `chain` has `peer`, `layers` and `milliseconds` of each hop; `timing` is in seconds.
    """

    where: str
    lines: Iterator[str]
    text: str = ""
    finish_reason: str | None = None
    tokens: list[int] = field(default_factory=list)
    chain: list[Json] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        with _translated(self.where):
            for event in _events(self.lines):
                for choice in event["choices"]:
                    self.finish_reason = choice["finish_reason"] or self.finish_reason
                    if text := choice["delta"].get("content") if "delta" in choice else choice["text"]:
                        self.text += text
                        yield text
                if report := event.get("intelnav"):
                    self.tokens, self.chain, self.timing = report["tokens"], report["chain"], report["timing"]

    def as_json(self) -> Json:
        """Everything that is known of the answer."""
        return {
            "text": self.text,
            "tokens": self.tokens,
            "finish_reason": self.finish_reason,
            "chain": self.chain,
            "timing": self.timing,
        }


class NodeClient:
    """A running node, reached over its control socket or over TCP; it is connected to when it is asked.

    `where` is a socket, a data folder or an `http://` address; None means the node that this environment has,
    or else the one that runs without a config. Every method raises NodeError.
    """

    def __init__(self, where: str | None, environ: Mapping[str, str] = os.environ) -> None:
        where = where or environ.get("INTELNAV_NODE") or environ.get("INTELNAV_DATA_DIR") or DATA_DIR
        if where.startswith(("http://", "https://")):
            self.where, base, transport = where, where, httpx.HTTPTransport()
        else:
            path = Path(where).expanduser()
            self.where = str(path if path.suffix == ".sock" else path / SOCKET)
            # No certificates are read for a socket of this machine: theirs may be missing, and take a while.
            base, transport = "http://localhost", httpx.HTTPTransport(uds=self.where, verify=False)
        with _translated(self.where):
            self._client = httpx.Client(base_url=base, transport=transport, timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def status(self) -> Json:
        """What the node says about itself."""
        return self._json("GET", "/status")

    def served(self) -> list[Json]:
        """The models that can be asked here, each with its `id` and `cid`."""
        with _translated(self.where):
            models = [dict(model) for model in self._json("GET", "/v1/models")["data"]]
            return [{"id": model["id"], "cid": model["cid"]} for model in models]

    def models(self) -> list[str]:
        """Names of the models that can be asked here, in the order of the node's config; at least one."""
        names = [str(model["id"]) for model in self.served()]
        if not names:
            raise NodeError(
                f"the node at {self.where} answers for no model: name one under `entry` in its config"
            )
        return names

    def unready(self) -> str | None:
        """Why the node cannot answer yet; None if it can."""
        with _translated(self.where):
            reply = self._client.get("/health")
            return None if reply.status_code == 200 else str(reply.json()["reason"])

    def library(self) -> Json:
        """The models that are on the node's machine, and those that can be had."""
        return self._json("GET", "/models")

    def peers(self) -> Json:
        """Whom the node is connected to, and whom it knows."""
        return self._json("GET", "/peers")

    def route(self, model: str, count: int) -> Json:
        """The chains that a request for this model would take now."""
        return self._json("GET", f"/route/{quote(model, safe='')}", params={"count": count})

    def swarm_models(self) -> list[Json]:
        """What the swarm serves, as far as the node finds out within `_SWARM_SECONDS`."""
        with _translated(self.where):
            found = self._json("GET", "/swarm/models", timeout=_SWARM_SECONDS)
            return [dict(model) for model in found["models"]]

    def remove(self, cid: str, layers: str | None) -> int:
        """Remove a model of the library, or one slice of it; the number of bytes freed."""
        with _translated(self.where):
            path = f"/models/{cid}" + (f"/{layers}" if layers is not None else "")
            return int(self._json("DELETE", path)["freed_bytes"])

    def plan(self, config: str | None = None, style: str = "yaml") -> Json:
        """What the node would do now, or with the text of another `config`."""
        return self._json("POST", "/plan", json={} if config is None else {"config": config, "format": style})

    def hosting(self) -> list[Json]:
        """The slices that the node hosts, with the chains that run through them."""
        with _translated(self.where):
            return [dict(held) for held in self._json("GET", "/hosting")["hosting"]]

    def leave(self, model: str, layers: str) -> Json:
        """Have the node give up a slice until its config is next loaded."""
        return self._json("POST", "/leave", json={"model": model, "layers": layers})

    def join(self, model: str, layers: str) -> Json:
        """Have the node host a slice until its config is next loaded."""
        return self._json("POST", "/join", json={"model": model, "layers": layers})

    def reload(self) -> Json:
        """Have the node load its config again."""
        return self._json("POST", "/reload", json={})

    @contextmanager
    def events(self, after: int = 0, *, follow: bool) -> Iterator[Iterator[Json]]:
        """What happened on the node, and with `follow` what happens until it stops."""
        query = {"after": after, "follow": int(follow)}
        with ExitStack() as stack:
            with _translated(self.where):
                # A node may have nothing to tell for days.
                quiet = httpx.Timeout(10, read=None)
                lines = self._streamed(stack, "GET", "/events", params=query, timeout=quiet)
            yield self._told(lines)

    @contextmanager
    def job(self, path: str, body: Json | None = None) -> Iterator[Iterator[Json]]:
        """Start work on the node; the events tell how far it is, and the last one has its `result`.

        Leaving the context early cancels the work.
        """
        with ExitStack() as stack:
            with _translated(self.where):
                lines = self._streamed(stack, "POST", path, json=body or {})
            yield self._told(lines)

    def _told(self, lines: Iterator[str]) -> Iterator[Json]:
        with _translated(self.where):
            yield from _events(lines)

    def _json(self, method: str, path: str, **request: Any) -> Json:
        """The answer to a request whose answer is one JSON object."""
        with _translated(self.where):
            return dict(_checked(self._client.request(method, path, **request)).json())

    def _streamed(self, stack: ExitStack, method: str, path: str, **request: Any) -> Iterator[str]:
        """The lines of an answer that is read while it comes, until `stack` is closed."""
        response = stack.enter_context(self._client.stream(method, path, **request))
        if response.status_code != 200:
            response.read()
        return _checked(response).iter_lines()

    @contextmanager
    def ask(
        self, prompt: str | list[Json], model: str | None = None, **settings: float | None
    ) -> Iterator[Reply]:
        """Ask with chat messages, or with text past the template. Leaving the context early cancels."""
        body: Json = {name: value for name, value in settings.items() if value is not None}
        body |= {"model": model or self.models()[0], "stream": True, "intelnav": True}
        if isinstance(prompt, str):
            path, body["prompt"] = "/v1/completions", prompt
        else:
            path, body["messages"] = "/v1/chat/completions", prompt
        with ExitStack() as stack:
            with _translated(self.where):
                lines = self._streamed(stack, "POST", path, json=body)
            yield Reply(self.where, lines)


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Errors of HTTP and of what it carried, as NodeError."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NodeError(
            f"no node answers at {where} ({error}). Whoever asks also hosts or relays: `intelnav init` writes a config "
            "for this machine; then start one with `intelnav-node --config FILE`, or say with --node where it is"
        ) from error
    except httpx.HTTPError as error:
        raise NodeError(f"the node at {where} broke off: {error or type(error).__name__}") from error
    except (httpx.InvalidURL, ValueError, LookupError, TypeError, AttributeError) as error:
        raise NodeError(f"what answers at {where} is no IntelNav node: {error}") from error


def _checked(response: httpx.Response) -> httpx.Response:
    """The response, if it is no error."""
    if response.status_code == 200:
        return response
    try:
        raise _error(response.json())
    except (ValueError, LookupError, TypeError) as error:
        raise NodeError(
            f"it answered {response.request.url.path} with HTTP {response.status_code}"
        ) from error


def _error(body: Json) -> NodeError:
    return NodeError(str(body["error"]["message"]), str(body["error"].get("code")))


def _events(lines: Iterator[str]) -> Iterator[Json]:
    """The server-sent events of a stream, up to its end mark."""
    for line in lines:
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            return
        if data != line:
            event: Json = json.loads(data)
            if "error" in event:
                raise _error(event)
            yield event
    raise NodeError("the node broke off before the end of the answer")
