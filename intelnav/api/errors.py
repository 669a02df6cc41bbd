"""Every refusal of the HTTP surface, in the shape of OpenAI's error object."""

from starlette.responses import JSONResponse

from intelnav.api.control import Conflict
from intelnav.chain.ring import HopError
from intelnav.domain.errors import Code, ConfigError, IntelNavError, PeerError

RETRY_AFTER_SECONDS = 2


class ApiError(IntelNavError):
    """A request that is answered with an HTTP `status`; `param` names the field that is to blame, if any."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    @classmethod
    def of(cls, error: IntelNavError) -> "ApiError":
        """What a failed generation means to a client: two codes of OpenAI's, else our own, as on the wire.

        A bad request is the client's own, unless a hop calls so what this node or the hop before sent it.
        """
        if isinstance(error, ApiError):
            return error
        if isinstance(error, Conflict):
            return cls(409, error.code, str(error))
        if isinstance(error, ConfigError):
            return cls(404, "model_not_found", str(error), param="model")
        if isinstance(error, PeerError) and error.code == Code.TOO_LONG:
            return cls(400, "context_length_exceeded", str(error))
        if error.code == Code.BAD_REQUEST and not isinstance(error, HopError):
            return cls(400, str(error.code), str(error))
        status = 503 if error.code in (Code.BUSY, Code.DRAINING) else 502
        return cls(status, str(error.code), str(error))

    @property
    def body(self) -> dict[str, object]:
        """The JSON object that a client gets, as a response body or as an event of a stream."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer to the request."""
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if self.status == 503 else None
        return JSONResponse(self.body, self.status, headers)
