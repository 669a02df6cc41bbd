import subprocess
import sys

import pytest


@pytest.mark.parametrize("style", ["human", "json"])
def test_requests_of_a_fetch_are_not_logged_one_by_one(style: str) -> None:
    program = (
        "import logging\n"
        "from intelnav.logs import set_up_logging\n"
        f"set_up_logging('info', {style!r})\n"
        "logging.getLogger('httpx').info('HTTP Request')\n"
        "logging.getLogger('httpx').warning('trouble')\n"
        "logging.getLogger('intelnav.node').info('is up')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert "HTTP Request" not in result.stderr
    assert "trouble" in result.stderr
    assert "is up" in result.stderr
