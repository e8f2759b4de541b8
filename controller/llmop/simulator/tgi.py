"""The native dialect of Text-Generation-Inference (router/src/server.rs): generate, streams, health, info."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Any

from .app import DOCKER_LABEL, VERSION, App, answer_json, event, read_body
from .errors import INCOMPLETE, INCOMPLETE_STREAM, InferError
from .generate import Failure, Finished, Piece, Prepare
from .http_server import Exchange, Response
from .request import Generation
from .text import Token, alternatives, split_tokens, token_id
from .validation import (
    GenerateRequest,
    best_of,
    read_generate_request,
    refuse_in_stream,
    validate,
)


async def generate(app: App, exchange: Exchange) -> Response | None:
    """POST /generate."""
    request = read_generate_request(read_body(exchange))
    finished = await app.inference.unary(*_sequences(app, request))
    return answer_json(_generated(request, finished), headers=timing_headers(request, finished))


async def generate_stream(app: App, exchange: Exchange) -> Response | None:
    """POST /generate_stream: always status 200; an error is an event."""
    await _stream(app, exchange, read_generate_request(read_body(exchange)))
    return None


async def compat_generate(app: App, exchange: Exchange) -> Response | None:
    """POST /: one of the two above, by `stream`; the unary answer is an array of one."""
    fields = read_body(exchange)
    request = read_generate_request(fields)
    if fields.flag("stream"):
        await _stream(app, exchange, request)
        return None
    finished = await app.inference.unary(*_sequences(app, request))
    return answer_json([_generated(request, finished)], headers=timing_headers(request, finished))


async def tokenize(app: App, exchange: Exchange) -> Response | None:
    """POST /tokenize: the tokens of `inputs` with their places, in characters."""
    request = read_generate_request(read_body(exchange))
    return answer_json(token_places(request.inputs))


async def health(app: App, exchange: Exchange) -> Response | None:
    """GET /health, /ping and /."""
    if app.inference.engine.healthy:
        return Response(200)
    return answer_json({"error": "unhealthy", "error_type": "healthcheck"}, 503)


async def info(app: App, exchange: Exchange) -> Response | None:
    """GET /info."""
    options = app.options
    return answer_json(
        {
            "model_id": options.model_id,
            "model_sha": None,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": options.max_concurrent_requests,
            "max_best_of": options.max_best_of,
            "max_stop_sequences": options.max_stop_sequences,
            "max_input_tokens": options.max_input_tokens,
            "max_total_tokens": options.max_total_tokens,
            "validation_workers": 2,
            "max_client_batch_size": options.max_client_batch_size,
            "router": "llmop-simulator",
            "version": VERSION,
            "sha": None,
            "docker_label": DOCKER_LABEL,
        }
    )


def prepared(app: App, request: GenerateRequest, copy: int = 0) -> Prepare:
    """What the engine asks for when it has a place for the request."""
    return partial(validate, request, app.options, copy)


def in_stream(error: InferError) -> InferError:
    """The error as a stream words it: a lost end has a name of its own there."""
    if error.kind is INCOMPLETE:
        return InferError(INCOMPLETE_STREAM, "Incomplete generation stream")
    return error


def timing_headers(request: GenerateRequest, finished: Finished) -> dict[str, str]:
    """The x-... headers of an answered request, times in milliseconds."""
    timing = finished.timing
    return {
        "x-compute-type": "simulator",
        "x-compute-time": f"{timing.total:.9f}",
        "x-compute-characters": str(len(request.inputs)),
        "x-total-time": _milliseconds(timing.total),
        "x-validation-time": _milliseconds(timing.validation),
        "x-queue-time": _milliseconds(timing.queue),
        "x-inference-time": _milliseconds(timing.inference),
        "x-time-per-token": _milliseconds(timing.per_token),
        "x-prompt-tokens": str(finished.generation.request.prompt_tokens),
        "x-generated-tokens": str(len(finished.generation.answer.tokens)),
    }


def stream_headers(characters: int) -> dict[str, str]:
    """The x-... headers of a stream."""
    return {
        "x-compute-type": "simulator",
        "x-compute-characters": str(characters),
        "x-accel-buffering": "no",
    }


def token_places(text: str) -> list[dict[str, Any]]:
    """The tokens of a prompt as /tokenize lists them."""
    places, start = [], 0
    for token in split_tokens(text):
        stop = start + len(token)
        places.append({"id": token_id(token), "text": token, "start": start, "stop": stop})
        start = stop
    return places


def _sequences(app: App, request: GenerateRequest) -> list[Prepare]:
    """One for each sequence of `best_of`. Raises InferError before any of them takes a place."""
    try:
        count = best_of(request, app.options)
    except InferError as error:
        app.observer.arrived()
        app.observer.refused(error.kind.metric)
        raise
    return [prepared(app, request, copy) for copy in range(count)]


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


def _token(token: Token) -> dict[str, Any]:
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}


def _generated(request: GenerateRequest, finished: Finished) -> dict[str, Any]:
    result: dict[str, Any] = {"generated_text": _text(request, finished.generation)}
    if request.details or request.decoder_input_details:
        details = _details(request, finished.generation)
        if finished.others:
            details["best_of_sequences"] = [
                {"generated_text": _text(request, other), **_details(request, other)}
                for other in finished.others
            ]
        result["details"] = details
    return result


def _text(request: GenerateRequest, generation: Generation) -> str:
    text = generation.answer.text
    return request.inputs + text if request.return_full_text else text


def _details(request: GenerateRequest, generation: Generation) -> dict[str, Any]:
    tokens = generation.answer.tokens
    prefill: list[dict[str, Any]] = []
    if request.decoder_input_details:
        # The first token of a prompt has nothing before it and therefore no probability.
        prefill = [
            {"id": token_id(text), "text": text, "logprob": -1.0 if index else None}
            for index, text in enumerate(split_tokens(generation.request.prompt))
        ]
    details: dict[str, Any] = {
        "finish_reason": generation.answer.finish_reason,
        "generated_tokens": len(tokens),
        "seed": generation.request.shown_seed,
        "prefill": prefill,
        "tokens": [_token(token) for token in tokens],
    }
    if generation.request.top_n_tokens:
        details["top_tokens"] = [_top_tokens(generation, token) for token in tokens]
    return details


def _top_tokens(generation: Generation, token: Token) -> list[dict[str, Any]]:
    return [_token(each) for each in alternatives(token, generation.request.top_n_tokens)]


async def _stream(app: App, exchange: Exchange, request: GenerateRequest) -> None:
    cut_after = app.faults.number("cut-stream", 0)
    stream = exchange.start_stream(stream_headers(len(request.inputs)))
    refused = refuse_in_stream(request)
    if refused is not None:
        app.observer.arrived()
        app.observer.refused(refused.kind.metric)
        await stream.send(event(refused.body()))
        stream.close()
        return
    async with aclosing(app.inference.stream([prepared(app, request)])) as pieces_so_far:
        async for pieces in pieces_so_far:
            events: list[bytes] = []
            for piece in pieces:
                if isinstance(piece, Failure):
                    events.append(event(in_stream(piece.error).body()))
                    continue
                events.append(event(_stream_token(request, piece)))
                if piece.index == cut_after:
                    await stream.send(b"".join(events))
                    stream.cut()
                    return
            await stream.send(b"".join(events))
    stream.close()


def _stream_token(request: GenerateRequest, piece: Piece) -> dict[str, Any]:
    result: dict[str, Any] = {"index": piece.index, "token": _token(piece.token)}
    if request.top_n_tokens:
        result["top_tokens"] = [_token(each) for each in alternatives(piece.token, request.top_n_tokens)]
    result["generated_text"] = result["details"] = None
    if piece.last:
        generation = piece.generation
        result["generated_text"] = _text(request, generation)
        if request.details:
            result["details"] = {
                "finish_reason": generation.answer.finish_reason,
                "generated_tokens": len(generation.answer.tokens),
                "seed": generation.request.shown_seed,
                "input_length": generation.request.prompt_tokens,
            }
    return result
