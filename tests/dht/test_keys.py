from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.keys import MODELS_KEY, RELAY_KEY, distance, model_key, node_id

ids = st.binary(min_size=20, max_size=20)


def test_keys_are_hashes_of_what_the_protocol_says() -> None:
    assert model_key("b3-x") == sha256(b"intelnav/model/1|b3-x").digest()[:20]
    assert sha256(b"intelnav/models/1").digest()[:20] == MODELS_KEY
    assert sha256(b"intelnav/relay/1").digest()[:20] == RELAY_KEY
    assert node_id(b"k" * 32) == sha256(b"k" * 32).digest()[:20]


@given(ids, ids, ids)
def test_distance_is_a_metric(a: bytes, b: bytes, c: bytes) -> None:
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
