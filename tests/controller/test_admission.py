from intelnav.controller.admission import Admission
from intelnav.controller.state import Loaded, ObservedSlice, Room, WantedSlice
from tests.controller.worlds import GIB, name

NAME = name("m 0..4")
RUNS = ObservedSlice(NAME, loaded=Loaded(Room(), 0.0, memory=3 * GIB))


def test_slices_wait_for_what_others_have() -> None:
    admission = Admission.of([(WantedSlice(NAME), RUNS)], 4 * GIB)
    assert admission.admit(GIB + GIB // 2) == (
        "waits for memory: needs 1.50 GiB beside 3.00 GiB of other slices or kept for them, where 4.00 GiB are "
        "all there is; host fewer layers, or lower sessions or context"
    )
    assert admission.admit(GIB) == ""
    assert admission.admit(1)


def test_a_slice_alone_is_left_to_its_worker() -> None:
    admission = Admission.of([], GIB)
    assert admission.admit(9 * GIB) == ""
    assert admission.admit(1)


def test_what_the_going_free_is_kept_for_the_first_that_waits() -> None:
    admission = Admission.of([(None, RUNS)], 5 * GIB)
    assert admission.admit(4 * GIB)
    # This one fits beside that as well, and waits with it.
    assert admission.admit(GIB)
    assert (admission.taken, admission.staying) == (8 * GIB, 5 * GIB)


def test_what_never_fits_beside_the_others_keeps_nothing() -> None:
    admission = Admission.of([(WantedSlice(NAME), RUNS)], 5 * GIB)
    assert admission.admit(4 * GIB)
    assert admission.admit(2 * GIB) == ""


def test_a_slice_that_is_loaded_anew_keeps_its_place() -> None:
    other = WantedSlice(NAME, Room(sessions=16))
    admission = Admission.of([(other, RUNS)], 6 * GIB)
    admission.readmit(5 * GIB, 3 * GIB)
    assert admission.admit(2 * GIB)
    assert admission.admit(GIB) == ""
