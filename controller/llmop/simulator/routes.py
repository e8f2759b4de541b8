"""Which handler answers what, and who must show the key.

As in TGI the key guards generation and /tokenize, but neither /chat_tokenize nor the information routes.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from . import admin, openai, tgi
from .app import App, answer_error
from .errors import BadBody, InferError
from .http_server import Exchange, Response

_Handler = Callable[[App, Exchange], Awaitable[Response | None]]

_GUARDED: dict[tuple[str, str], _Handler] = {
    ("POST", "/"): tgi.compat_generate,
    ("POST", "/generate"): tgi.generate,
    ("POST", "/generate_stream"): tgi.generate_stream,
    ("POST", "/tokenize"): tgi.tokenize,
    ("POST", "/v1/chat/completions"): openai.chat_completions,
    ("POST", "/v1/completions"): openai.completions,
}
_OPEN: dict[tuple[str, str], _Handler] = {
    ("GET", "/"): tgi.health,
    ("GET", "/health"): tgi.health,
    ("GET", "/ping"): tgi.health,
    ("GET", "/info"): tgi.info,
    ("GET", "/metrics"): tgi.metrics,
    ("GET", "/v1/models"): openai.models,
    ("POST", "/chat_tokenize"): openai.chat_tokenize,
}
_ADMIN: dict[tuple[str, str], _Handler] = {
    ("POST", "/simulator/fault"): admin.add_fault,
    ("DELETE", "/simulator/fault"): admin.clear_faults,
}


class Routes:
    """The handler of the HTTP server."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._guarded = {**_GUARDED, **_ADMIN} if app.options.admin else _GUARDED
        self._paths: dict[str, list[str]] = {}
        for method, path in [*self._guarded, *_OPEN]:
            self._paths.setdefault(path, []).append(method)
        key = app.options.api_key
        self._authorization = None if key is None else f"Bearer {key}".lower().encode()

    async def __call__(self, exchange: Exchange) -> Response | None:
        """Answer one request; None means that the handler has streamed its answer."""
        request = exchange.request
        method = "GET" if request.method == "HEAD" else request.method
        handler = self._guarded.get((method, request.path))
        if handler is not None and not self._authorized(exchange):
            return Response(401)
        handler = handler or _OPEN.get((method, request.path))
        if handler is None:
            allowed = self._paths.get(request.path)
            return Response(405, headers={"allow": ",".join(allowed)}) if allowed else Response(404)
        try:
            return await handler(self._app, exchange)
        except (InferError, BadBody) as error:
            return answer_error(error)

    def _authorized(self, exchange: Exchange) -> bool:
        if self._authorization is None:
            return True
        # TGI compares without regard to case.
        given = exchange.request.headers.get("authorization", "").lower().encode("utf-8")
        return hmac.compare_digest(given, self._authorization)
