"""vLLM as a personality: its OpenAI routes, health, version, metrics and /tokenize (vllm/entrypoints/, version 0.33).

Its habits are kept: the key guards some prefixes only, a stream tells its usage only when asked, begins with a chunk for the role,
and ends with `[DONE]`, also after an error; what is refused is refused before a stream begins.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from .app import App, answer_json, metrics, to_json
from .errors import InferError
from .generate import Failure, Finished, Piece, Prepare
from .http_server import Exchange, Request, Response
from .personality import Handler, Personality
from .request import Generation, ValidRequest
from .text import Token, alternatives, split_tokens, token_id, token_text
from .vllm_errors import VllmError, of_engine
from .vllm_metrics import VllmMetrics
from .vllm_request import Body, Wishes, chat, chat_prompt, completion, read_body

VERSION = "0.33.0"
FINGERPRINT = f"vllm-{VERSION}-simulator"
# vllm/entrypoints/serve/middleware/authenticate.py
_GUARDED_PREFIXES = ("/v1", "/v2", "/inference", "/cohere")
_STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8"}
_DONE = b"data: [DONE]\n\n"


async def health(app: App, exchange: Exchange) -> Response | None:
    """GET /health: 503 once the engine is dead."""
    return Response(200 if app.inference.engine.healthy else 503)


async def version(app: App, exchange: Exchange) -> Response | None:
    """GET /version."""
    return answer_json({"version": VERSION})


async def models(app: App, exchange: Exchange) -> Response | None:
    """GET /v1/models: the one model."""
    permission = {
        "id": f"modelperm-{secrets.token_hex(8)}",
        "object": "model_permission",
        "created": _now(),
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    card = {
        "id": app.options.served_model_name,
        "object": "model",
        "created": _now(),
        "owned_by": "vllm",
        "root": app.options.model_id,
        "parent": None,
        "max_model_len": app.options.max_total_tokens,
        "permission": [permission],
    }
    return answer_json({"object": "list", "data": [card]})


async def tokenize(app: App, exchange: Exchange) -> Response | None:
    """POST /tokenize: the tokens of a prompt, or of the prompt that a chat makes."""
    body = _body(exchange)
    if body.get("messages") is not None:
        prompt = chat_prompt(body)
    else:
        given = body.text("prompt")
        if given is None:
            raise body.missing("prompt", "messages")
        prompt = given
    tokens = split_tokens(prompt)
    return answer_json(
        {
            "count": len(tokens),
            "max_model_len": app.options.max_total_tokens,
            "tokens": [token_id(token) for token in tokens],
            "token_strs": tokens if body.flag("return_token_strs") else None,
        }
    )


async def detokenize(app: App, exchange: Exchange) -> Response | None:
    """POST /detokenize: the text of tokens that were generated."""
    body = _body(exchange)
    return answer_json({"prompt": "".join(token_text(number) for number in body.tokens("tokens"))})


async def completions(app: App, exchange: Exchange) -> Response | None:
    """POST /v1/completions: one prompt or several, unary or as a stream."""
    wishes = completion(_body(exchange), app.options)
    answer_id = _id("cmpl", exchange)
    if wishes.stream:
        await _stream(app, exchange, wishes, _CompletionChunks(app, answer_id, wishes))
        return None
    finished = await _all(app, wishes)
    choices = [
        {
            "index": index,
            "text": _visible(each.generation),
            "logprobs": _completion_logprobs(each.generation.answer.tokens, wishes.logprobs, 0),
            **_end(each.generation),
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "routed_experts": None,
        }
        for index, each in enumerate(finished)
    ]
    return answer_json(
        {
            **_envelope(app, answer_id, "text_completion"),
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": _full_usage(wishes, finished),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
    )


async def chat_completions(app: App, exchange: Exchange) -> Response | None:
    """POST /v1/chat/completions, unary or as a stream."""
    wishes = chat(_body(exchange), app.options)
    answer_id = _id("chatcmpl", exchange)
    if wishes.stream:
        await _stream(app, exchange, wishes, _ChatChunks(app, answer_id, wishes))
        return None
    finished = await _all(app, wishes)
    choices = [
        {
            "index": index,
            "message": {
                "role": "assistant",
                "content": _visible(each.generation),
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "reasoning": None,
            },
            "logprobs": _chat_logprobs(each.generation.answer.tokens, wishes.logprobs),
            **_end(each.generation),
            "token_ids": None,
            "routed_experts": None,
        }
        for index, each in enumerate(finished)
    ]
    return answer_json(
        {
            **_envelope(app, answer_id, "chat.completion"),
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": _full_usage(wishes, finished),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
    )


class _Chunks:
    """Makes the events of one stream. `first` are those that come with the first token of all."""

    def __init__(self, app: App, answer_id: str, wishes: Wishes, kind: str) -> None:
        self._envelope = _envelope(app, answer_id, kind)
        self._wishes = wishes
        self._shown = [0] * len(wishes.requests)
        self._given = [0] * len(wishes.requests)

    def first(self) -> list[dict[str, Any]]:
        return []

    def chunk(self, piece: Piece) -> dict[str, Any]:
        raise NotImplementedError

    def usage(self) -> dict[str, Any]:
        """The event of its own, behind the others."""
        return {
            **self._envelope,
            "choices": [],
            "usage": _usage(_prompt_tokens(self._wishes), sum(self._given)),
            "system_fingerprint": FINGERPRINT,
        }

    def _text(self, piece: Piece) -> str:
        """What this token adds to the text; a stop sequence is no part of it, nor are control tokens."""
        visible = _visible(piece.generation)
        begins = self._shown[piece.stream]
        self._given[piece.stream] += 1
        ends = begins if piece.token.special else min(begins + len(piece.token.text), len(visible))
        self._shown[piece.stream] = ends
        return visible[begins:ends]

    def _finish(self, chunk: dict[str, Any], piece: Piece) -> dict[str, Any]:
        if piece.last and not self._wishes.usage:
            chunk["system_fingerprint"] = FINGERPRINT
        if self._wishes.usage_all_along:
            request = self._wishes.requests[piece.stream]
            chunk["usage"] = _usage(request.prompt_tokens, self._given[piece.stream])
        return chunk


class _CompletionChunks(_Chunks):
    def __init__(self, app: App, answer_id: str, wishes: Wishes) -> None:
        super().__init__(app, answer_id, wishes, "text_completion")
        self._offsets = [0] * len(wishes.requests)

    def chunk(self, piece: Piece) -> dict[str, Any]:
        offset = self._offsets[piece.stream]
        self._offsets[piece.stream] += len(piece.token.text)
        choice = {
            "index": piece.stream,
            "text": self._text(piece),
            "logprobs": _completion_logprobs((piece.token,), self._wishes.logprobs, offset),
            **(_end(piece.generation) if piece.last else {"finish_reason": None, "stop_reason": None}),
            "prompt_token_ids": None,
            "token_ids": None,
        }
        return self._finish({**self._envelope, "choices": [choice]}, piece)


class _ChatChunks(_Chunks):
    def __init__(self, app: App, answer_id: str, wishes: Wishes) -> None:
        super().__init__(app, answer_id, wishes, "chat.completion.chunk")

    def first(self) -> list[dict[str, Any]]:
        chunks = []
        for index, request in enumerate(self._wishes.requests):
            choice = {
                "index": index,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
            chunk = {**self._envelope, "choices": [choice], "prompt_token_ids": None, "prompt_text": None}
            if self._wishes.usage_all_along:
                chunk["usage"] = _usage(request.prompt_tokens, 0)
            chunks.append(chunk)
        return chunks

    def chunk(self, piece: Piece) -> dict[str, Any]:
        choice = {
            "index": piece.stream,
            "delta": {"content": self._text(piece)},
            "logprobs": _chat_logprobs((piece.token,), self._wishes.logprobs),
            **(_end(piece.generation) if piece.last else {"finish_reason": None}),
            "token_ids": None,
        }
        return self._finish({**self._envelope, "choices": [choice]}, piece)


async def _stream(app: App, exchange: Exchange, wishes: Wishes, chunks: _Chunks) -> None:
    # A full engine says so before the stream begins.
    app.inference.engine.check_room(len(wishes.requests))
    cut_after = app.faults.number("cut-stream", 0)
    stream = exchange.start_stream(_STREAM_HEADERS)
    begun = failed = False
    async with aclosing(app.inference.stream(_prepared(wishes.requests))) as pieces_so_far:
        async for pieces in pieces_so_far:
            events: list[bytes] = []
            for piece in pieces:
                if isinstance(piece, Failure):
                    failed = True
                    events.append(_event(of_engine(piece.error).body()))
                    break
                if not begun:
                    begun = True
                    events += [_event(chunk) for chunk in chunks.first()]
                events.append(_event(chunks.chunk(piece)))
                if piece.index == cut_after:
                    await stream.send(b"".join(events))
                    stream.cut()
                    return
            await stream.send(b"".join(events))
            if failed:
                break
    if wishes.usage and not failed:
        await stream.send(_event(chunks.usage()))
    await stream.send(_DONE)
    stream.close()


async def _all(app: App, wishes: Wishes) -> list[Finished]:
    app.inference.engine.check_room(len(wishes.requests))
    return await app.inference.unary_each(_prepared(wishes.requests))


def _prepared(requests: Sequence[ValidRequest]) -> list[Prepare]:
    return [_already(request) for request in requests]


def _already(request: ValidRequest) -> Prepare:
    """vLLM checks a request before the engine hears of it."""
    return lambda: request


def _body(exchange: Exchange) -> Body:
    return read_body(exchange.request.headers.get("content-type", ""), exchange.request.body)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"


def _id(kind: str, exchange: Exchange) -> str:
    return f"{kind}-{exchange.request.headers.get('x-request-id') or secrets.token_hex(8)}"


def _now() -> int:
    return int(time.time())  # noqa: TID251 - the simulator imports nothing of llmop


def _envelope(app: App, answer_id: str, kind: str) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": kind,
        "created": _now(),
        "model": app.options.served_model_name,
    }


def _visible(generation: Generation) -> str:
    """The text of an answer without the stop sequence that ended it."""
    answer = generation.answer
    return answer.text.removesuffix(_stopped_by(generation) or "")


def _stopped_by(generation: Generation) -> str | None:
    if generation.answer.finish_reason != "stop_sequence":
        return None
    return next(each for each in generation.request.stop if generation.answer.text.endswith(each))


def _end(generation: Generation) -> dict[str, Any]:
    reason = "length" if generation.answer.finish_reason == "length" else "stop"
    return {"finish_reason": reason, "stop_reason": _stopped_by(generation)}


def _prompt_tokens(wishes: Wishes) -> int:
    """The choices of one prompt share it."""
    return sum(request.prompt_tokens for request in wishes.requests[:: wishes.choices])


def _usage(prompt: int, given: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + given, "completion_tokens": given}


def _full_usage(wishes: Wishes, finished: list[Finished]) -> dict[str, Any]:
    given = sum(len(each.generation.answer.tokens) for each in finished)
    return {
        **_usage(_prompt_tokens(wishes), given),
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def _completion_logprobs(tokens: tuple[Token, ...], count: int | None, offset: int) -> dict[str, Any] | None:
    if count is None:
        return None
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "text_offset": offsets,
        "token_logprobs": [token.logprob for token in tokens],
        "tokens": [token.text for token in tokens],
        "top_logprobs": [
            {each.text: each.logprob for each in (token, *alternatives(token, count + 1)[1:])}
            for token in tokens
        ],
    }


def _chat_logprobs(tokens: tuple[Token, ...], count: int | None) -> dict[str, Any] | None:
    if count is None:
        return None
    return {
        "content": [
            {
                **_logprob(token),
                "top_logprobs": [_logprob(each) for each in alternatives(token, count)],
            }
            for token in tokens
        ]
    }


def _logprob(token: Token) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.text.encode())}


def _is_guarded(request: Request) -> bool:
    return request.method != "OPTIONS" and request.path.startswith(_GUARDED_PREFIXES)


def _refused(error: Exception) -> Response | None:
    if isinstance(error, InferError):
        error = of_engine(error)
    return answer_json(error.body(), error.status) if isinstance(error, VllmError) else None


_ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/health"): health,
    ("GET", "/version"): version,
    ("GET", "/metrics"): metrics,
    ("GET", "/v1/models"): models,
    ("POST", "/tokenize"): tokenize,
    ("POST", "/detokenize"): detokenize,
    ("POST", "/v1/completions"): completions,
    ("POST", "/v1/chat/completions"): chat_completions,
}
PERSONALITY = Personality(
    routes=_ROUTES,
    observer=VllmMetrics,
    is_guarded=_is_guarded,
    same_key=hmac.compare_digest,
    unauthorized=answer_json({"error": "Unauthorized"}, 401),
    not_found=answer_json({"detail": "Not Found"}, 404),
    not_allowed=lambda methods: answer_json(
        {"detail": "Method Not Allowed"}, 405, {"allow": ", ".join(methods)}
    ),
    refused=_refused,
    accepts_while_draining=True,
)
