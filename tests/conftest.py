import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.links import MakeEndpoint, endpoints

# A shell starts background jobs with SIGINT ignored, and so would every program be that these tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow example on a busy machine is no failure; the time limit of each test stands.
settings.register_profile("intelnav", deadline=None)
settings.load_profile("intelnav")


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the test's own, whose path is short: that of a socket in it may have 107 bytes.

    pytest's has the name of the test in it, and a number that grows by one with every run on a machine.
    """
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """What the node itself runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def endpoint() -> AsyncIterator[MakeEndpoint]:
    """Makes nodes that have links and nothing else."""
    async with endpoints() as make:
        yield make
