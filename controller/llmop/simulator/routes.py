"""The handler of the HTTP server: finds the route of the personality, asks for the key, makes answers of errors."""

from __future__ import annotations

from . import admin, tei, tgi_routes, vllm
from .app import App
from .http_server import Exchange, Request, Response
from .personality import Handler, Personality

PERSONALITIES: dict[str, Personality] = {
    "tgi": tgi_routes.PERSONALITY,
    "vllm": vllm.PERSONALITY,
    "tei": tei.PERSONALITY,
}
_ADMIN: dict[tuple[str, str], Handler] = {
    ("POST", "/simulator/fault"): admin.add_fault,
    ("DELETE", "/simulator/fault"): admin.clear_faults,
}


class Routes:
    """One simulator's. Faults on demand are there with `--admin` only, and always ask for the key."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._personality = PERSONALITIES[app.options.personality]
        self._admin = _ADMIN if app.options.admin else {}
        self._paths: dict[str, list[str]] = {}
        for method, path in [*self._personality.routes, *self._admin]:
            self._paths.setdefault(path, []).append(method)
        key = app.options.api_key
        self._authorization = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, exchange: Exchange) -> Response | None:
        """Answer one request; None means that the handler has streamed its answer."""
        request = exchange.request
        personality = self._personality
        route = ("GET" if request.method == "HEAD" else request.method, request.path)
        guarded = route in self._admin or personality.is_guarded(request)
        if guarded and not self._authorized(request):
            return personality.unauthorized
        handler = self._admin.get(route) or personality.routes.get(route)
        if handler is None:
            allowed = self._paths.get(request.path)
            return personality.not_allowed(allowed) if allowed else personality.not_found
        try:
            return await handler(self._app, exchange)
        except Exception as error:
            answer = personality.refused(error)
            if answer is None:
                raise
            return answer

    def _authorized(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").encode()
        return self._authorization is None or self._personality.same_key(given, self._authorization)
