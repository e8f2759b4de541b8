"""Text-Generation-Inference as a personality.

As in TGI the key guards generation and /tokenize, but neither /chat_tokenize nor the information routes.
"""

from __future__ import annotations

import hmac

from . import tgi, tgi_openai
from .app import App, answer_error, metrics, read_body
from .errors import BadBody, InferError
from .http_server import Exchange, Request, Response
from .personality import Handler, Personality
from .tgi_metrics import TgiMetrics


async def invocations(app: App, exchange: Exchange) -> Response | None:
    """POST /invocations, SageMaker's route: what it is, its fields say (router/src/sagemaker.rs)."""
    fields = read_body(exchange)
    if fields.get("inputs") is not None:
        return await tgi.compat_generate(app, exchange)
    if fields.get("messages") is not None:
        return await tgi_openai.chat_completions(app, exchange)
    if fields.get("prompt") is not None:
        return await tgi_openai.completions(app, exchange)
    raise BadBody(
        422,
        "Failed to deserialize the JSON body into the target type: "
        "data did not match any variant of untagged enum SagemakerRequest",
    )


_GUARDED: dict[tuple[str, str], Handler] = {
    ("POST", "/"): tgi.compat_generate,
    ("POST", "/generate"): tgi.generate,
    ("POST", "/generate_stream"): tgi.generate_stream,
    ("POST", "/tokenize"): tgi.tokenize,
    ("POST", "/invocations"): invocations,
    ("POST", "/v1/chat/completions"): tgi_openai.chat_completions,
    ("POST", "/v1/completions"): tgi_openai.completions,
}
_OPEN: dict[tuple[str, str], Handler] = {
    ("GET", "/"): tgi.health,
    ("GET", "/health"): tgi.health,
    ("GET", "/ping"): tgi.health,
    ("GET", "/info"): tgi.info,
    ("GET", "/metrics"): metrics,
    ("GET", "/v1/models"): tgi_openai.models,
    ("POST", "/chat_tokenize"): tgi_openai.chat_tokenize,
}


def _is_guarded(request: Request) -> bool:
    return (request.method, request.path) in _GUARDED


def _same_key(given: bytes, wanted: bytes) -> bool:
    """TGI compares without regard to case."""
    return hmac.compare_digest(given.lower(), wanted.lower())


def _refused(error: Exception) -> Response | None:
    return answer_error(error) if isinstance(error, InferError | BadBody) else None


PERSONALITY = Personality(
    routes={**_GUARDED, **_OPEN},
    observer=TgiMetrics,
    is_guarded=_is_guarded,
    same_key=_same_key,
    unauthorized=Response(401),
    not_found=Response(404),
    not_allowed=lambda methods: Response(405, headers={"allow": ",".join(methods)}),
    refused=_refused,
)
