import pytest

from intelnav.controller.ledger import MemoryLedger
from intelnav.domain.errors import EngineError
from intelnav.engine.footprint import Footprint

GIB = 2**30


def test_slices_are_refused_what_the_others_have_been_promised() -> None:
    ledger = MemoryLedger(4 * GIB)
    ledger.promise("first", Footprint(2 * GIB, GIB, 0))
    with pytest.raises(
        EngineError, match=r"needs 1\.50 GiB .*, beside 3\.00 GiB .*, where 4\.00 GiB are all"
    ):
        ledger.promise("second", Footprint(GIB, GIB // 2, 0))
    ledger.promise("third", Footprint(GIB, 0, 0))
    ledger.refund("first")
    ledger.refund("second")
    ledger.promise("second", Footprint(3 * GIB, 0, 0))


def test_a_slice_alone_is_left_to_its_worker() -> None:
    MemoryLedger(GIB).promise("large", Footprint(9 * GIB, 0, 0))
