import json
import re
import subprocess
import sys

import pytest

RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def logged(style: str, level: str, *lines: str) -> str:
    """What these lines of a program that has `log` write to standard error."""
    program = "\n".join(
        [
            "import logging",
            "from intelnav.logs import set_up_logging",
            f"set_up_logging({level!r}, {style!r})",
            "log = logging.getLogger('intelnav.node')",
            *lines,
        ]
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr
    return result.stderr


@pytest.mark.parametrize("style", ["human", "json"])
@pytest.mark.parametrize("level", ["debug", "info"])
def test_requests_of_a_fetch_are_not_logged_one_by_one(style: str, level: str) -> None:
    said = logged(
        style,
        level,
        "logging.getLogger('httpx').info('HTTP Request')",
        "logging.getLogger('httpcore.connection').debug('connect_tcp')",
        "logging.getLogger('httpx').warning('trouble')",
        "log.info('is up')",
    )
    assert "HTTP Request" not in said
    assert "connect_tcp" not in said
    assert "trouble" in said
    assert "is up" in said


def test_a_line_for_programs_has_time_level_logger_message_and_fields() -> None:
    said = logged(
        "json",
        "debug",
        "log.debug('a %s line', 'short')",
        "log.warning('with\\nfields', extra={'session': bytes(range(16)), 'model': 'b3-x', 'layers': 7, 'other': 1})",
    )
    first, second = map(json.loads, said.splitlines())
    assert re.fullmatch(RFC3339, first.pop("time"))
    assert first == {"level": "debug", "logger": "intelnav.node", "message": "a short line"}
    del second["time"]
    assert second == {
        "level": "warning",
        "logger": "intelnav.node",
        "message": "with\nfields",
        "session": "00010203",
        "model": "b3-x",
        "layers": "7",
    }


def test_an_exception_is_part_of_its_line() -> None:
    said = logged("json", "info", "try: 1 / 0", "except ZeroDivisionError: log.exception('a bug')")
    (line,) = map(json.loads, said.splitlines())
    assert line["message"] == "a bug"
    assert "ZeroDivisionError" in line["exception"]


def test_a_line_for_people_has_the_same() -> None:
    said = logged("human", "info", "log.info('is up', extra={'peer': 'abc', 'layers': '0..8'})")
    assert re.fullmatch(RFC3339 + r" INFO    intelnav\.node: is up \[layers=0\.\.8 peer=abc\]\n", said)


def test_nobody_writes_a_line_of_their_own() -> None:
    said = logged("human", "info", r"log.info('bye\n2026-01-01 INFO forged\x1b[2J')", "log.info('next')")
    lines = said.splitlines()
    assert [bool(re.match(RFC3339, line)) for line in lines] == [True, False, True]
    assert lines[1] == "    2026-01-01 INFO forged?[2J"
