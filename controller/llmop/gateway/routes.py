"""Which requests are the hot path, and what a path says about dialect and model. Pure."""

import dataclasses
import urllib.parse
from collections.abc import Mapping

import httptools

from llmop.gateway.errors import Dialect

MODELS_PREFIX = b"/models/"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """`target` is what the engine is asked for (path and query); `model` is the model that the path names, or None; `generates` says
    that tokens are spent, `streams` that the body's "stream" decides how they come, `is_virtual` that only virtual models have it.
    """

    dialect: Dialect
    target: bytes
    model: str | None = None
    method: bytes = b"POST"
    generates: bool = True
    streams: bool = False
    is_virtual: bool = False


_POSTED = {
    route.target: route
    for route in (
        Route(dialect=Dialect.OPENAI, target=b"/v1/chat/completions", streams=True),
        Route(dialect=Dialect.OPENAI, target=b"/v1/completions", streams=True),
        Route(dialect=Dialect.OPENAI, target=b"/v1/embeddings"),
        Route(dialect=Dialect.OPENAI, target=b"/v1/tribunal", streams=True, is_virtual=True),
        Route(dialect=Dialect.TGI, target=b"/generate_stream"),
        Route(dialect=Dialect.TGI, target=b"/generate"),
        Route(dialect=Dialect.TGI, target=b"/chat_tokenize", generates=False),
        Route(dialect=Dialect.TGI, target=b"/tokenize", generates=False),
        Route(dialect=Dialect.TGI, target=b"/"),
    )
}
_GOT = {b"/info": Route(dialect=Dialect.TGI, target=b"/info", method=b"GET", generates=False)}
_ROUTES = {b"POST": _POSTED, b"GET": _GOT}
_NO_ROUTES: dict[bytes, Route] = {}


def find_route(method: bytes, url: bytes) -> Route | None:
    """The hot route of a request's target (origin or absolute form), or None.

    Below `/models/<name>/` the name may hold `/`, plain or as `%2F`; `/models/<name>` alone is the compatibility route of TGI,
    which its client calls.
    """
    routes = _ROUTES.get(method, _NO_ROUTES)
    route = routes.get(url)
    if route is not None or not routes:
        return route
    parts = httptools.parse_url(url)
    path: bytes = parts.path or b"/"
    query: bytes = b"?" + parts.query if parts.query else b""
    if path.startswith(MODELS_PREFIX):
        return _named(routes, path[len(MODELS_PREFIX) :], query)
    route = routes.get(path)
    return route and dataclasses.replace(route, target=path + query)


def is_target(url: bytes) -> bool:
    """Whether a request's target is a path, or an absolute form that has one."""
    if url in _POSTED:
        return True
    if url.startswith((b"/", b"http://", b"https://")):
        try:
            return httptools.parse_url(url).path is not None
        except httptools.HttpParserInvalidURLError:
            return False
    return False


def _named(routes: Mapping[bytes, Route], rest: bytes, query: bytes) -> Route | None:
    for suffix, route in routes.items():
        if suffix != b"/" and rest.endswith(suffix) and len(rest) > len(suffix):
            name = rest[: -len(suffix)]
            return dataclasses.replace(route, target=suffix + query, model=model_name(name))
    name = rest.rstrip(b"/")
    if b"/" not in routes or not name or b"/v1/" in rest or rest.endswith(b"/v1"):
        return None
    return dataclasses.replace(routes[b"/"], target=b"/" + query, model=model_name(name))


def model_name(path: bytes) -> str:
    return urllib.parse.unquote_to_bytes(path).decode(errors="replace")
