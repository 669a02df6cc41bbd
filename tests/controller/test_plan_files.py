"""Golden plans: each file of `plans/` has a config, a world, and all that is to be planned in it."""

from pathlib import Path

import pytest
import yaml

from intelnav.controller.plan import plan
from tests.controller.worlds import desired, observed, written

FILES = sorted((Path(__file__).parent / "plans").glob("*.yaml"))


def test_there_are_as_many_golden_plans_as_promised() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_plan_is_that_of_the_file(file: Path) -> None:
    case = yaml.safe_load(file.read_text())
    assert set(case) == {"now", "config", "observed", "plan"}
    got = written(plan(desired(case["config"]), observed(case["observed"]), float(case["now"])))
    assert got == case["plan"]
