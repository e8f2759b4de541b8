"""Serves the page. Its files are read once; browsers keep them and ask with the ETag whether they are still good."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ROOT = b"/"
FOLDER = b"/page/"
_STATIC = Path(__file__).parent / "static"
_INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# An answer of a model is a stranger's text. Whatever it holds: nothing is loaded from or sent to anywhere but this gateway, nothing inline
# runs, and no text can be made into markup (trusted types without a policy).
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class _File(NamedTuple):
    body: bytes
    media_type: str
    etag: str


def routes() -> list[Route]:
    """For GET and HEAD, one per file; the index is at `/` alone."""
    files = {path.name: _read(path) for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES}
    return [
        Route(ROOT.decode() if name == _INDEX else f"{FOLDER.decode()}{name}", _endpoint(file))
        for name, file in files.items()
    ]


def _read(path: Path) -> _File:
    body = path.read_bytes()
    return _File(body, _TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _endpoint(file: _File) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        headers = {**_HEADERS, "etag": file.etag}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers={**headers, "content-type": file.media_type})

    return answer
