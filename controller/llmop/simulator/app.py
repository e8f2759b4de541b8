"""What every handler is given, and how answers are written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .body import Fields, read_json
from .errors import BadBody, InferError
from .faults import Faults
from .generate import Inference
from .http_server import Exchange, Response
from .observer import Observer
from .options import Options
from .prometheus import CONTENT_TYPE

VERSION = "3.3.6-dev0"
DOCKER_LABEL = "simulator"
FINGERPRINT = f"{VERSION}-{DOCKER_LABEL}"

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class App:
    """The simulator as its handlers see it."""

    options: Options
    inference: Inference
    observer: Observer
    faults: Faults


def to_json(value: Any) -> bytes:
    """Compact JSON, as serde and pydantic write it."""
    return _encode(value).encode("utf-8", "replace")


def event(value: Any) -> bytes:
    """One server-sent event. TGI's framework writes no blank after the colon."""
    return b"data:" + to_json(value) + b"\n\n"


def answer_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(status, to_json(value), "application/json", headers or {})


def answer_error(error: InferError | BadBody) -> Response:
    """An error as TGI writes it outside of streams; its OpenAI routes use the same."""
    if isinstance(error, BadBody):
        return Response(error.status, error.message.encode(), "text/plain; charset=utf-8")
    return answer_json(error.body(), error.kind.status)


def read_body(exchange: Exchange) -> Fields:
    """The JSON body of a request. Raises BadBody."""
    return read_json(exchange.request.headers.get("content-type", ""), exchange.request.body)


async def metrics(app: App, exchange: Exchange) -> Response | None:
    """GET /metrics."""
    return Response(200, app.observer.render(app.inference.engine.load()).encode(), CONTENT_TYPE)
