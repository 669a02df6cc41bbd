import signal
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from tests.links import MakeEndpoint, endpoints

# A shell starts background jobs with SIGINT ignored, and so would every program be that these tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow example on a busy machine is no failure; the time limit of each test stands.
settings.register_profile("intelnav", deadline=None)
settings.load_profile("intelnav")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """What the node itself runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def endpoint() -> AsyncIterator[MakeEndpoint]:
    """Makes nodes that have links and nothing else."""
    async with endpoints() as make:
        yield make
