"""What is fetched once stays: hosts whose image has no model get their layers from a peer, and keep them."""

from pathlib import Path

import pytest
import yaml

from tests.appliance.engine import NODE
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
    volumes = ["./config/compose:/etc/intelnav:ro", "seed:/var/lib/intelnav"]
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


def sent(swarm: Swarm) -> int:
    """Bytes of models that nodes gave to each other since they were started."""
    return sum(
        swarm.status(str(each.Name))["chunks"]["bytes_sent"]
        for each in swarm.containers()
        if each.Service in ("seed", "host")
    )


def test_down_and_up_again_downloads_nothing(tmp_path: Path) -> None:
    with swarm_in(tmp_path, seed(tmp_path)) as swarm:
        swarm.up()
        hosts = swarm.names("host")
        peers = swarm.peers("host")
        slices = 2 * int(swarm.status(hosts[0])["store"]["used_bytes"])
        assert len(peers) == 2
        assert sent(swarm) > 0.5 * slices > 10e6
        swarm.down()
        assert swarm.containers() == []
        swarm.up()
        assert swarm.peers("host") == peers
        assert sent(swarm) == 0
