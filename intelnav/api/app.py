"""The node's HTTP application: its state, models, network, control, completions; closed to other sites' web pages."""

import ipaddress
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from intelnav.api.completions import Completions
from intelnav.api.control import Control
from intelnav.api.control_routes import control_routes
from intelnav.api.errors import ApiError
from intelnav.api.metrics import Metered, metric_routes
from intelnav.api.models import Library, model_routes
from intelnav.api.network import Network, network_routes
from intelnav.api.openai import ChatBody, TextBody
from intelnav.chain.interface import Completer, ServedModel

Status = Callable[[], dict[str, Any]]
Ready = Callable[[], tuple[bool, str]]

# Names that no public DNS server answers for.
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa")


def build_app(
    completer: Completer,
    status: Status,
    ready: Ready,
    library: Library | None = None,
    network: Network | None = None,
    control: Control | None = None,
    metered: Metered | None = None,
) -> Starlette:
    """The application around a node's parts; `ready` says whether a question can be answered, or why not.

    Without a `library` there is nothing under `/models`, without a `network` none of what `network_routes` lists,
    without a `control` none of `control_routes` and without `metered` no `/metrics`. One application serves both
    listeners: what changes the node tells by the request whether it came over the control socket.
    """

    async def health(_: Request) -> Response:
        is_ready, reason = ready()
        return JSONResponse(
            {"ready": True} if is_ready else {"ready": False, "reason": reason}, 200 if is_ready else 503
        )

    async def show_status(_: Request) -> Response:
        return JSONResponse(status())

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(served) for served in completer.models()]})

    async def model(request: Request) -> Response:
        wanted = request.path_params["id"]
        for served in completer.models():
            if wanted in (served.id, served.name):
                return JSONResponse(_model(served))
        return ApiError(
            404, "model_not_found", f"This node does not serve {wanted[:100]!r}", param="model"
        ).response()

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/status", show_status),
            Route("/v1/models", models),
            Route("/v1/models/{id:path}", model),
            Route("/v1/chat/completions", Completions(completer, ChatBody), methods=["POST"]),
            Route("/v1/completions", Completions(completer, TextBody), methods=["POST"]),
            *(model_routes(library) if library is not None else ()),
            *(network_routes(network) if network is not None else ()),
            *(control_routes(control) if control is not None else ()),
            *(metric_routes(metered) if metered is not None else ()),
        ],
        middleware=[Middleware(NoForeignPages)],
        exception_handlers={404: _not_found, 405: _wrong_method, 500: _bug},
    )


def _model(served: ServedModel) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": 0,
        "owned_by": "intelnav",
        "cid": served.id,
        "context": served.context,
    }


async def _not_found(request: Request, _: Exception) -> Response:
    return ApiError(404, "not_found", f"There is no {request.url.path[:200]} here").response()


async def _wrong_method(request: Request, _: Exception) -> Response:
    return ApiError(405, "method_not_allowed", f"{request.method} is not for {request.url.path}").response()


async def _bug(_: Request, __: Exception) -> Response:
    return ApiError(500, "internal", "This node failed; its log says where").response()


class NoForeignPages:
    """Refuses what a web page of another site can make its visitor's browser send here.

    A page names its site in `Origin`, which must be the host that it calls. A page that had its own name
    rebound to this machine passes that test, so the called host must also be one that a stranger cannot own:
    an address, a name without a dot (`localhost`, a container's), or one under a local suffix.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not _is_local_name(host):
            reason = f"The host {host[:100]!r} is refused: call this node by its IP address or as localhost"
        elif origin is not None and not _is_of(origin, host):
            reason = f"Pages of {origin[:100]!r} may not call this node"
        else:
            await self._app(scope, receive, send)
            return
        await ApiError(403, "foreign_page", reason).response()(scope, receive, send)


def _is_of(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if "." not in name or name.endswith(_LOCAL_SUFFIXES):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
