import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.store.cid import cid_of, digest_of, is_cid


def test_an_id_is_the_hash_in_base32() -> None:
    assert cid_of(bytes(32)) == "b3-" + "a" * 52
    assert is_cid(cid_of(bytes(range(32))))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b3-",
        "b3-" + "a" * 51,
        "b3-" + "a" * 51 + "b",
        "b3-" + "a" * 53,
        "b3-" + "A" * 52,
        "../" + "a" * 52,
        "b3-" + "a" * 52 + "\n",
    ],
)
def test_anything_else_is_no_id(text: str) -> None:
    assert not is_cid(text)


@given(st.binary(min_size=32, max_size=32))
def test_an_id_and_its_digest_stand_for_each_other(digest: bytes) -> None:
    assert is_cid(cid_of(digest))
    assert digest_of(cid_of(digest)) == digest
