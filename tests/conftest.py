from collections.abc import AsyncIterator

import pytest

from tests.links import MakeEndpoint, endpoints


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """What the node itself runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def endpoint() -> AsyncIterator[MakeEndpoint]:
    """Makes nodes that have links and nothing else."""
    async with endpoints() as make:
        yield make
