"""What is fetched once stays: hosts whose image has no model get their layers from a peer, and keep them."""

import re
from pathlib import Path

import pytest
import yaml

from tests.appliance.engine import NODE, docker
from tests.appliance.swarm import Swarm, swarm_in

pytestmark = [pytest.mark.appliance, pytest.mark.timeout(420)]

CATALOG_NAME = "smollm2-135m-instruct-q4_1"


def seed(folder: Path) -> dict[str, object]:
    """An override with one more host, which has all of the model, and hosts that have to fetch theirs from it."""
    configs = folder / "config/compose"
    configs.mkdir(parents=True)
    network = {"listen": "0.0.0.0:7717", "bootstrap": ["relay:7717"], "mdns": False}
    limits = {"sessions": 1, "context": 512}
    for name, layers in (("seed", "0..30"), ("fetching", "8..20")):
        config = {
            "slices": [{"model": CATALOG_NAME, "layers": layers}],
            "network": network,
            "limits": limits,
        }
        (configs / f"{name}.yaml").write_text(yaml.safe_dump(config))
    volumes = ["./my-configs:/etc/intelnav:ro", "seed:/var/lib/intelnav"]
    return {
        "services": {
            "host": {
                "image": NODE,
                "scale": 2,
                "command": ["intelnav-slot", "intelnav-node", "--config", "/etc/intelnav/fetching.yaml"],
                "depends_on": {"seed": {"condition": "service_healthy"}},
            },
            "seed": {
                "image": "intelnav:smollm2",
                "command": ["intelnav-node", "--config", "/etc/intelnav/seed.yaml"],
                "networks": ["swarm"],
                "volumes": volumes,
            },
        },
        "volumes": {"seed": {}},
    }


def fetched(swarm: Swarm) -> list[int]:
    """Bytes of models that each host got over the network since it was started."""
    program = (
        "import os, httpx\n"
        "socket = httpx.HTTPTransport(uds=os.environ['INTELNAV_DATA_DIR'] + '/control.sock')\n"
        "print(httpx.Client(transport=socket).get('http://localhost/metrics').text)"
    )
    pattern = re.compile(r"^intelnav_chunk_received_bytes_total (\S+)$", re.MULTILINE)
    return [
        int(float(value))
        for name in swarm.names("host")
        for value in pattern.findall(docker("exec", name, "python3", "-c", program))
    ]


def test_down_and_up_again_downloads_nothing(tmp_path: Path) -> None:
    with swarm_in(tmp_path, seed(tmp_path)) as swarm:
        swarm.up()
        peers = swarm.peers("host")
        assert len(peers) == 2
        first = fetched(swarm)
        assert len(first) == 2
        # Twelve layers of thirty, and what tells how the model is to be run; by far not the whole.
        assert all(10e6 < each < 50e6 for each in first), first
        swarm.down()
        assert swarm.containers() == []
        swarm.up()
        assert swarm.peers("host") == peers
        assert fetched(swarm) == [0, 0]
