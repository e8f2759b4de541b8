"""Text Embeddings Inference as a personality: embeddings, no text (router/src/http/server.rs, version 1.9).

An embedding takes the time of its prompt's prefill. Texts that share words lie near each other.
"""

from __future__ import annotations

import base64
import hmac
import math
import random
import struct
from functools import lru_cache, partial
from typing import Any

from .app import App, answer_json, metrics
from .body import Fields, read_json
from .errors import BadBody, InferError
from .generate import Finished
from .http_server import Exchange, Request, Response
from .personality import Handler, Personality
from .request import ValidRequest
from .tei_metrics import TeiMetrics
from .text import count_tokens, split_tokens, token_id

VERSION = "1.9.3"
_ERRORS = {  # of the engine: `error_type`, status (ErrorType and its StatusCode)
    "overloaded": ("Overloaded", 429),
    "generation": ("Backend", 424),
    "incomplete_generation": ("Backend", 424),
}


class TeiError(Exception):
    """A refused request; the OpenAI routes write it in their own form."""

    def __init__(self, message: str, kind: str, status: int) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.status = status
        self.openai = False

    def body(self) -> dict[str, Any]:
        if self.openai:
            return {"message": self.message, "code": self.status, "type": self.kind}
        return {"error": self.message, "error_type": self.kind}


async def health(app: App, exchange: Exchange) -> Response | None:
    """GET /health, /ping and /."""
    if app.inference.engine.healthy:
        return Response(200)
    raise TeiError("unhealthy", "Unhealthy", 503)


async def info(app: App, exchange: Exchange) -> Response | None:
    """GET /info."""
    options = app.options
    return answer_json(
        {
            "model_id": options.model_id,
            "model_sha": None,
            "model_dtype": "float16",
            "served_model_name": options.served_model_name,
            "model_type": {"embedding": {"pooling": "mean"}},
            "max_concurrent_requests": options.max_concurrent_requests,
            "max_input_length": options.max_input_tokens,
            "max_batch_tokens": options.kv_tokens,
            "max_batch_requests": options.max_batch_size or None,
            "max_client_batch_size": options.max_client_batch_size,
            "auto_truncate": True,
            "tokenization_workers": 2,
            "version": VERSION,
            "sha": None,
            "docker_label": "simulator",
        }
    )


async def embed(app: App, exchange: Exchange) -> Response | None:
    """POST /embed: a list of embeddings, also for one text."""
    fields = _fields(exchange)
    texts, single = _inputs(fields, "inputs")
    truncate = fields.get("truncate")
    finished = await _embed(app, texts, single, truncate=truncate is None or fields.flag("truncate"))
    size = _size(app, fields)
    normalize = fields.get("normalize") is None or fields.flag("normalize")
    vectors = [_vector(app, each, size, normalize=normalize) for each in finished]
    return answer_json(vectors, headers=_headers(texts, finished))


async def openai_embed(app: App, exchange: Exchange) -> Response | None:
    """POST /v1/embeddings and /embeddings."""
    try:
        fields = _fields(exchange)
        texts, single = _inputs(fields, "input")
        encoding = fields.text("encoding_format") or "float"
        if encoding not in ("float", "base64"):
            raise BadBody(
                422,
                "Failed to deserialize the JSON body into the target type: encoding_format: "
                f"unknown variant `{encoding}`, expected `float` or `base64`",
            )
        finished = await _embed(app, texts, single, truncate=True)
        size = _size(app, fields)
    except InferError as error:
        refused = _of_engine(error)
        refused.openai = True
        raise refused from error
    except TeiError as error:
        error.openai = True
        raise
    tokens = sum(each.generation.request.prompt_tokens for each in finished)
    return answer_json(
        {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "embedding": _encoded(_vector(app, each, size, normalize=True), encoding),
                    "index": index,
                }
                for index, each in enumerate(finished)
            ],
            "model": app.options.served_model_name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        },
        headers=_headers(texts, finished),
    )


async def tokenize(app: App, exchange: Exchange) -> Response | None:
    """POST /tokenize: a list of tokens for each text."""
    texts, _ = _inputs(_fields(exchange), "inputs")
    _check_batch(app, texts)
    answer = []
    for text in texts:
        places, start = [], 0
        for token in split_tokens(text):
            stop = start + len(token)
            places.append(
                {"id": token_id(token), "text": token, "special": False, "start": start, "stop": stop}
            )
            start = stop
        answer.append(places)
    return answer_json(answer)


def embedding(text: str, size: int) -> list[float]:
    """The sum of a vector for each word, the same everywhere: it depends on the words, not on their order."""
    total = [0.0] * size
    for word in text.lower().split() or [""]:
        for index, value in enumerate(_word(word, size)):
            total[index] += value
    return total


def normalized(vector: list[float]) -> list[float]:
    """The same direction, with length 1."""
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


def _vector(app: App, finished: Finished, size: int, *, normalize: bool) -> list[float]:
    """The first `size` numbers are taken before the length is made 1."""
    vector = embedding(finished.generation.request.prompt, app.options.embedding_size)[:size]
    return normalized(vector) if normalize else vector


@lru_cache(maxsize=4096)
def _word(word: str, size: int) -> tuple[float, ...]:
    source = random.Random(word)
    return tuple(source.gauss(0, 1) for _ in range(size))


async def _embed(app: App, texts: list[str], single: bool, *, truncate: bool) -> list[Finished]:
    observer = app.observer
    assert isinstance(observer, TeiMetrics)
    observer.requested(single=single)
    _check_batch(app, texts)
    finished = await app.inference.unary_each(
        [partial(_valid, app, text, truncate=truncate) for text in texts]
    )
    observer.succeeded([each.timing for each in finished], single=single)
    return finished


def _check_batch(app: App, texts: list[str]) -> None:
    if not texts:
        app.observer.refused("validation")
        # The router leaves out the words that other errors of validation begin with.
        raise TeiError("`inputs` cannot be empty", "Empty", 400)
    most = app.options.max_client_batch_size
    if len(texts) > most:
        app.observer.refused("batch_size")
        raise TeiError(f"batch size {len(texts)} > maximum allowed batch size {most}", "Validation", 422)


def _valid(app: App, text: str, *, truncate: bool) -> ValidRequest:
    """Raises TeiError for a text that is empty, or too long and not to be cut."""
    if not text:
        app.observer.refused("tokenization")
        raise TeiError("Input validation error: `inputs` cannot be empty", "Empty", 400)
    tokens, most = count_tokens(text), app.options.max_input_tokens
    if tokens > most and not truncate:
        app.observer.refused("tokenization")
        raise TeiError(
            f"Input validation error: `inputs` must have less than {most} tokens. Given: {tokens}",
            "Validation",
            422,
        )
    if tokens > most:
        text, tokens = "".join(split_tokens(text)[:most]), most
    return ValidRequest(
        prompt=text,
        prompt_tokens=tokens,
        most=1,
        natural=None,
        reserved_tokens=tokens,
        stop=(),
        text_seed="",
    )


def _fields(exchange: Exchange) -> Fields:
    return read_json(exchange.request.headers.get("content-type", ""), exchange.request.body)


def _inputs(fields: Fields, name: str) -> tuple[list[str], bool]:
    """The texts, and whether it was one outside of a list. Tokens instead of text are taken by their numbers. Raises BadBody."""
    given = fields.get(name)
    if given is None:
        fields.required_text(name)
    if isinstance(given, str):
        return [given], True
    if _is_tokens(given) and given:
        return [" ".join(map(str, given))], True
    if not isinstance(given, list) or not all(isinstance(each, str) or _is_tokens(each) for each in given):
        raise BadBody(
            422,
            f"Failed to deserialize the JSON body into the target type: {name}: "
            "data did not match any variant of untagged enum Input",
        )
    return [each if isinstance(each, str) else " ".join(map(str, each)) for each in given], False


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, int) and not isinstance(each, bool) for each in value
    )


def _size(app: App, fields: Fields) -> int:
    wanted, own = fields.whole("dimensions"), app.options.embedding_size
    if wanted is None:
        return own
    problem = "" if wanted else "`dimensions` should be positive"
    if wanted > own:
        problem = "`dimensions` should be smaller than the maximum embedding dimension."
    if problem:
        app.observer.refused("validation")
        raise TeiError(f"Input validation error: {problem}", "Validation", 422)
    return wanted


def _encoded(vector: list[float], encoding: str) -> Any:
    if encoding == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return vector


def _headers(texts: list[str], finished: list[Finished]) -> dict[str, str]:
    def mean(values: list[float]) -> str:
        return str(int(sum(values) / len(values) * 1000))

    timings = [each.timing for each in finished]
    total = str(int(max(timing.total for timing in timings) * 1000))
    return {
        "x-compute-type": "simulator",
        "x-compute-time": total,
        "x-compute-characters": str(sum(map(len, texts))),
        "x-compute-tokens": str(sum(each.generation.request.prompt_tokens for each in finished)),
        "x-total-time": total,
        "x-tokenization-time": mean([timing.validation for timing in timings]),
        "x-queue-time": mean([timing.queue for timing in timings]),
        "x-inference-time": mean([timing.inference for timing in timings]),
    }


def _of_engine(error: InferError) -> TeiError:
    kind, status = _ERRORS.get(error.kind.error_type, ("Backend", 424))
    message = error.message if kind == "Overloaded" else f"Backend error: {error.message}"
    return TeiError(message, kind, status)


def _refused(error: Exception) -> Response | None:
    if isinstance(error, BadBody):
        return Response(error.status, error.message.encode(), "text/plain; charset=utf-8")
    if isinstance(error, InferError):
        error = _of_engine(error)
    return answer_json(error.body(), error.status) if isinstance(error, TeiError) else None


_GUARDED: dict[tuple[str, str], Handler] = {
    ("GET", "/info"): info,
    ("POST", "/"): embed,
    ("POST", "/embed"): embed,
    ("POST", "/embeddings"): openai_embed,
    ("POST", "/v1/embeddings"): openai_embed,
    ("POST", "/tokenize"): tokenize,
}
_OPEN: dict[tuple[str, str], Handler] = {
    ("GET", "/"): health,
    ("GET", "/health"): health,
    ("GET", "/ping"): health,
    ("GET", "/metrics"): metrics,
}


def _is_guarded(request: Request) -> bool:
    return (request.method, request.path) in _GUARDED


PERSONALITY = Personality(
    routes={**_GUARDED, **_OPEN},
    observer=TeiMetrics,
    is_guarded=_is_guarded,
    same_key=hmac.compare_digest,
    unauthorized=Response(401),
    not_found=Response(404),
    not_allowed=lambda methods: Response(405, headers={"allow": ",".join(methods)}),
    refused=_refused,
)
