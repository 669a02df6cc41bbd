"""A swarm as compose.yaml makes it, from a copy of the files that it is made of."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import yaml
from openai import OpenAI
from testcontainers.compose import ComposeContainer, DockerCompose

from tests.appliance.engine import NODE, ROOT, docker, inspect, run

MODEL = "smollm2"
SYSTEM = "You are a helpful assistant."
"""What makes so small a model say what it knows."""
BLOCKS = 30

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came as a stream: the pieces of text, and the chain that made them."""

    pieces: list[str]
    layers: list[str]
    peers: list[str]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Swarm:
    """The containers of one compose project in `folder`; `override` is laid over compose.yaml."""

    def __init__(self, folder: Path, override: Json | None = None) -> None:
        self.folder = folder
        # The containers' user is to read the configs.
        folder.chmod(0o755)
        self.project = f"intelnav-test-{token_hex(4)}"
        self.url = f"http://127.0.0.1:{free_port()}"
        copy_files(folder, ["compose.yaml", "config/compose"])
        # As the page says how to keep configs of one's own.
        self._configs = folder / "my-configs"
        (folder / "config/compose").rename(self._configs)
        settle(
            folder,
            self.project,
            self.url.rpartition(":")[2],
            override or {},
            INTELNAV_CONFIG="./my-configs",
        )
        self._compose = DockerCompose(folder)

    def up(self) -> None:
        """Start what does not run, and wait until all are healthy."""
        try:
            self._compose.start()
        except Exception as error:
            raise AssertionError(f"{error}\n{self.logs()}") from error

    def down(self) -> None:
        """Remove the containers; what lies on the volumes stays."""
        self.command("down")

    def command(self, *arguments: str, stdin: str = "") -> str:
        return run("docker", "compose", *arguments, folder=self.folder, stdin=stdin)

    def logs(self) -> str:
        return self.command("logs", "--no-color", "--tail", "200")

    def containers(self, service: str | None = None) -> list[ComposeContainer]:
        """Those of a service, or all, whether they run or not, by name."""
        found = [each for each in self._compose.get_containers(True) if service in (None, each.Service)]
        return sorted(found, key=lambda each: each.Name or "")

    def names(self, service: str) -> list[str]:
        return [str(each.Name) for each in self.containers(service)]

    def peers(self, service: str) -> set[str]:
        """Who the nodes of a service are."""
        return {self.status(name)["peer"] for name in self.names(service)}

    def status(self, container: str) -> Json:
        """What the node in a container says of itself."""
        status: Json = json.loads(docker("exec", container, "intelnav", "status", "--json"))
        return status

    def get(self, path: str) -> Json:
        """What the entry answers on its published address."""
        answer: Json = httpx.get(self.url + path, timeout=60).raise_for_status().json()
        return answer

    def lacks(self) -> str:
        """Why no question can be answered; empty if one can."""
        reply = httpx.get(f"{self.url}/route/{MODEL}", timeout=60)
        return "" if reply.status_code == 200 else reply.text

    def ask(self, question: str, tokens: int = 40, model: str = MODEL) -> Answer:
        """Ask with the official client, streaming."""
        with OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
            stream = client.chat.completions.create(
                model=model,
                messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}],
                stream=True,
                temperature=0,
                max_tokens=tokens,
                extra_body={"intelnav": True},
            )
            pieces, chain = [], []
            for chunk in stream:
                pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
                chain += (chunk.model_extra or {}).get("intelnav", {}).get("chain", [])
        return Answer(pieces, [hop["layers"] for hop in chain], [hop["peer"] for hop in chain])

    def edit(self, file: str, **settings: Any) -> None:
        """Change top-level keys of a config, as an editor does that replaces the file."""
        path = self._configs / file
        draft = path.with_suffix(".new")
        draft.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}))
        draft.replace(path)

    def crash(self, container: str) -> None:
        """End the node in a container, without a chance to clean up; the engine is not told."""
        command = ["sh", "-c", f"kill -9 {inspect(container)['State']['Pid']}"]
        docker("run", "--rm", "--pid=host", "--user=0", "--network=none", NODE, *command)


def copy_files(folder: Path, tracked: list[str]) -> None:
    """Copy what git knows of these files and folders."""
    for name in run("git", "ls-files", "--", *tracked).splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


def settle(folder: Path, project: str, port: str, override: Json, **variables: str) -> None:
    """Have `docker compose` in `folder` use a project name, a port, and an override that this machine may need."""
    if "--network=host" in os.environ.get("IMAGE_FLAGS", ""):
        services = override.setdefault("services", {})
        for name in yaml.safe_load((folder / "compose.yaml").read_text())["services"]:
            services.setdefault(name, {})["build"] = {"network": "host"}
    (folder / "test.yaml").write_text(yaml.safe_dump(override))
    settings = {
        "COMPOSE_PROJECT_NAME": project,
        "COMPOSE_FILE": "compose.yaml:test.yaml",
        "INTELNAV_PORT": port,
        **variables,
    }
    (folder / ".env").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))


@contextmanager
def swarm_in(folder: Path, override: Json | None = None) -> Iterator[Swarm]:
    """A swarm that is not up yet; nothing is left of it afterwards."""
    swarm = Swarm(folder, override)
    try:
        yield swarm
    finally:
        swarm.command("--profile", "chat", "down", "--volumes", "--timeout", "5")


def cover(layers: list[str]) -> bool:
    """Whether ranges, in this order, are all layers of the model, each once."""
    bounds = [tuple(map(int, each.split(".."))) for each in layers]
    starts, ends = [start for start, _ in bounds], [end for _, end in bounds]
    return bool(bounds) and starts == [0, *ends[:-1]] and ends[-1] == BLOCKS


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
