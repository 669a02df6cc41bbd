"""images/*.yaml: overlays that Compose takes, and that say what was run."""

import json

import pytest

from tests.appliance.engine import ROOT, docker

pytestmark = pytest.mark.appliance

VARIANTS = sorted(path.stem for path in (ROOT / "images").glob("*.yaml"))


def test_there_is_one_for_each_kind_of_device() -> None:
    assert VARIANTS == ["cpu", "cuda", "vulkan"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_laid_over_the_swarm(variant: str) -> None:
    file = ROOT / f"images/{variant}.yaml"
    text = file.read_text()
    assert f"docker compose -f compose.yaml -f images/{variant}.yaml up --build --wait" in text
    assert "\n# Run: " in text
    assert "\n# Not run: " in text
    merged = docker(
        "compose", "-f", str(ROOT / "compose.yaml"), "-f", str(file), "config", "--format", "json"
    )
    services = json.loads(merged)["services"]
    image = "intelnav:smollm2" if variant == "cpu" else f"intelnav:{variant}"
    for name in ("host", "entry"):
        assert services[name]["image"] == image
        assert services[name]["build"]["target"] == "smollm2"
        assert services[name]["read_only"]
    assert services["relay"]["image"] == "intelnav:smollm2"
