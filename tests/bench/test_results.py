import json
from pathlib import Path

import pytest

from tests.bench.results import merge, show


def test_a_benchmark_replaces_its_own_part_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "build" / "bench.json"
    merge("speed", {"ratio": 0.5}, file)
    merge("memory", {"bytes": 7}, file)
    merge("speed", {"ratio": 0.9}, file)
    assert json.loads(file.read_text()) == {"speed": {"ratio": 0.9}, "memory": {"bytes": 7}}
    assert list(file.parent.iterdir()) == [file]


def test_a_table_shows_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    show("Title", ["what", "how much"], [["small", 0.7654], ["large", 1234.5], ["count", 7]])
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("Title", "how much", "0.765", "1,234", "7"))
