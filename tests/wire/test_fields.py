import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.errors import Code
from intelnav.encoding import fields as shared
from intelnav.encoding.fields import Field
from intelnav.wire import fields
from tests.wire.strategies import addresses, next_hops, samplings

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=10,
)
ALL = [value for value in (vars(fields) | vars(shared)).values() if isinstance(value, Field)]


@given(anything, st.sampled_from(ALL))
def test_a_reader_raises_only_value_errors(value: object, field: Field) -> None:
    try:
        read = field.read(value)
    except ValueError:
        return
    assert field.read(field.write(read)) == read


@given(next_hops)
def test_a_next_hop_survives(hop: object) -> None:
    assert fields.NEXT_HOP.read(fields.NEXT_HOP.write(hop)) == hop


@given(samplings)
def test_sampling_survives(sampling: object) -> None:
    assert fields.SAMPLING.read(fields.SAMPLING.write(sampling)) == sampling


@given(addresses)
def test_no_address_of_ours_is_refused_by_a_peer(address: object) -> None:
    assert shared.ADDRESSES.read([str(address)]) == (address,)


def test_a_sampling_setting_that_is_null_is_absent() -> None:
    assert fields.SAMPLING.read({"seed": 7, "top_p": None}) == fields.SAMPLING.read({"seed": 7})


@pytest.mark.parametrize("host", ["a..b", ".", "..", ".a", "x" * 64, "x" * 64 + ".example"])
def test_a_host_name_that_cannot_be_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        shared.ADDRESSES.read([f"{host}:1"])


def test_true_is_not_one() -> None:
    with pytest.raises(ValueError, match="whole number"):
        shared.U32.read(True)


def test_a_code_of_a_later_version_still_ends_the_session() -> None:
    assert fields.CODE.read("tired") is Code.CLOSED
    assert [fields.CODE.read(code.value) for code in Code] == list(Code)
