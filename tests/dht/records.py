"""Records for tests: signed by numbered peers, at a fixed time."""

from intelnav.dht.keys import model_key
from intelnav.dht.records import Offer, Record, encode_record
from intelnav.domain.advert import Address
from intelnav.domain.identity import Identity
from intelnav.domain.slice import LayerRange

NOW = 1_800_000_000.0
MODEL = "b3-" + "a" * 52
KEY = model_key(MODEL)
OFFER = Offer(addresses=(Address("192.0.2.7", 7717),), slices=(LayerRange(8, 15),))


def peer(number: int) -> Identity:
    return Identity(number.to_bytes(32, "big"))


def record(
    number: int = 1, *, seq: int = 1, key: bytes = KEY, offer: Offer = OFFER, lives: int = 1800
) -> Record:
    return encode_record(peer(number), key, offer, seq=seq, expires=int(NOW) + lives)
