"""Who may change a node: only those who can open its control socket."""

from starlette.requests import Request

from intelnav.api.errors import ApiError


def check_local(request: Request, what: str) -> None:
    """Raise ApiError 403 for a request over TCP: whoever reaches that may ask questions, not change the node.

    `what` is the beginning of the sentence that is the answer, as in "Models are changed".
    """
    server = request.scope.get("server")
    if server is not None and server[1] is not None:
        reason = f"{what} over the node's control socket only (control.sock): run this on its own machine"
        raise ApiError(403, "control_socket_only", reason)
