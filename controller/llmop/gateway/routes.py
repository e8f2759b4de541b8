"""Which requests are the hot path, and what a path says about dialect and model. Pure."""

import dataclasses
import urllib.parse

import httptools

from llmop.gateway.errors import Dialect

MODELS_PREFIX = b"/models/"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """`target` is what the engine is asked for (path and query); `model` is the model that the path names, or None."""

    dialect: Dialect
    target: bytes
    model: str | None = None


_DIALECTS = {
    b"/v1/chat/completions": Dialect.OPENAI,
    b"/v1/completions": Dialect.OPENAI,
    b"/v1/embeddings": Dialect.OPENAI,
    b"/generate_stream": Dialect.TGI,
    b"/generate": Dialect.TGI,
    b"/": Dialect.TGI,
}
HOT_TARGETS = {path: Route(dialect=dialect, target=path) for path, dialect in _DIALECTS.items()}
_SUFFIXES = tuple(path for path in _DIALECTS if path != b"/")


def find_route(url: bytes) -> Route | None:
    """The hot route of a POST's target (origin or absolute form), or None.

    Below `/models/<name>/` the name may hold `/`, plain or as `%2F`; `/models/<name>` alone is the compatibility route of TGI,
    which its client calls.
    """
    route = HOT_TARGETS.get(url)
    if route is not None:
        return route
    parts = httptools.parse_url(url)
    path: bytes = parts.path or b"/"
    query: bytes = b"?" + parts.query if parts.query else b""
    if path.startswith(MODELS_PREFIX):
        return _named(path[len(MODELS_PREFIX) :], query)
    dialect = _DIALECTS.get(path)
    if dialect is None:
        return None
    return Route(dialect=dialect, target=path + query)


def is_target(url: bytes) -> bool:
    """Whether a request's target is a path, or an absolute form that has one."""
    if url.startswith((b"/", b"http://", b"https://")):
        try:
            return httptools.parse_url(url).path is not None
        except httptools.HttpParserInvalidURLError:
            return False
    return False


def _named(rest: bytes, query: bytes) -> Route | None:
    for suffix in _SUFFIXES:
        if rest.endswith(suffix) and len(rest) > len(suffix):
            name = rest[: -len(suffix)]
            return Route(dialect=_DIALECTS[suffix], target=suffix + query, model=model_name(name))
    name = rest.rstrip(b"/")
    if not name or b"/v1/" in rest or rest.endswith(b"/v1"):
        return None
    return Route(dialect=Dialect.TGI, target=b"/" + query, model=model_name(name))


def model_name(path: bytes) -> str:
    return urllib.parse.unquote_to_bytes(path).decode(errors="replace")
