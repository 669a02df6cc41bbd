import pytest

from intelnav.api.errors import ApiError
from intelnav.chain.ring import HopError
from intelnav.chain.route import RouteHop
from intelnav.domain.errors import Code, ConfigError, ContentError, EngineError, IntelNavError, PeerError
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange

HOP = RouteHop(PeerId(bytes(32)), (), LayerRange(8, 15))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConfigError("no such model"), 404, "model_not_found"),
        (PeerError(Code.TOO_LONG, "9000 tokens"), 400, "context_length_exceeded"),
        (HopError(Code.TOO_LONG, HOP, "9000 tokens"), 400, "context_length_exceeded"),
        (PeerError(Code.BAD_REQUEST, "the prompt is empty"), 400, "bad_request"),
        (HopError(Code.BAD_REQUEST, HOP, "no such tensor"), 502, "bad_request"),
        (PeerError(Code.BUSY, "full"), 503, "busy"),
        (PeerError(Code.DRAINING, "leaving"), 503, "draining"),
        (PeerError(Code.TIMEOUT, "silence"), 502, "timeout"),
        (PeerError(Code.NOT_HOSTING, "gap at 8..15"), 502, "not_hosting"),
        (EngineError("worker died"), 502, "engine_failed"),
        (ContentError("bad hash"), 502, "content"),
        (ApiError(413, "too_large", "too large"), 413, "too_large"),
    ],
)
def test_every_error_has_a_status_and_a_stable_code(error: IntelNavError, status: int, code: str) -> None:
    answer = ApiError.of(error)
    assert (answer.status, answer.code, str(answer)) == (status, code, str(error))
    kind = "invalid_request_error" if status < 500 else "server_error"
    assert answer.body == {
        "error": {"message": str(error), "type": kind, "param": answer.param, "code": code}
    }
    assert ("retry-after" in answer.response().headers) == (status == 503)
