"""The OpenAI dialect as Text-Generation-Inference speaks it: /v1/models, /v1/completions, /v1/chat/completions.

Its habits are kept: ids are empty, every chat chunk carries the role, errors inside a stream always say 422,
and a streamed completion shows the text of the end token.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from .app import FINGERPRINT, App, answer_json, event, read_body
from .body import Fields
from .errors import BATCH_SIZE, SUFFIX, TEMPLATE, TOOL, InferError, invalid
from .generate import Failure, Piece
from .http_server import Exchange, Response
from .request import Generation
from .text import Token, alternatives
from .tgi import in_stream, prepared, stream_headers, timing_headers, token_places
from .validation import GenerateRequest

_DONE = b"data:[DONE]\n\n"
_DEFAULT_COMPLETION_TOKENS = 100


async def models(app: App, exchange: Exchange) -> Response | None:
    """GET /v1/models: the one model."""
    name = app.options.served_model_name
    return answer_json(
        {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": name}]}
    )


async def completions(app: App, exchange: Exchange) -> Response | None:
    """POST /v1/completions: one prompt or a list, unary or as a stream."""
    app.observer.arrived()
    fields = read_body(exchange)
    try:
        requests = _completion_requests(app, fields)
    except InferError as error:
        app.observer.refused(error.kind.metric)
        raise
    if fields.flag("stream"):
        await _stream(app, exchange, requests, lambda piece: [_completion_chunk(app, piece)])
        return None
    finished = await app.inference.unary_each([prepared(app, request) for request in requests])
    usage = _usage(*[each.generation for each in finished])
    choices = [
        {
            "index": index,
            "text": each.generation.answer.text,
            "logprobs": None,
            "finish_reason": _finish_reason(each.generation),
        }
        for index, each in enumerate(finished)
    ]
    headers = timing_headers(requests[0], finished[0]) if finished else {}
    return answer_json(
        {**_envelope(app.options.served_model_name, "text_completion"), "choices": choices, "usage": usage},
        headers=headers,
    )


async def chat_completions(app: App, exchange: Exchange) -> Response | None:
    """POST /v1/chat/completions, unary or as a stream."""
    app.observer.arrived()
    fields = read_body(exchange)
    request = _chat_request(app, fields)
    logprobs = fields.flag("logprobs")
    model = _chat_model(app, fields)
    if fields.flag("stream"):
        with_usage = fields.object("stream_options").flag("include_usage")
        await _stream(
            app, exchange, [request], lambda piece: _chat_chunks(model, request, piece, logprobs, with_usage)
        )
        return None
    finished = await app.inference.unary(prepared(app, request))
    generation = finished.generation
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": generation.answer.text},
        "logprobs": _logprobs(request, generation.answer.tokens) if logprobs else None,
        "finish_reason": _finish_reason(generation),
    }
    answer = {**_envelope(model, "chat.completion"), "choices": [choice], "usage": _usage(generation)}
    return answer_json(answer, headers=timing_headers(request, finished))


async def chat_tokenize(app: App, exchange: Exchange) -> Response | None:
    """POST /chat_tokenize: the prompt that the chat template makes, and its tokens."""
    app.observer.arrived()
    text = _chat_request(app, read_body(exchange)).inputs
    return answer_json({"tokenize_response": token_places(text), "templated_text": text})


def _completion_requests(app: App, fields: Fields) -> list[GenerateRequest]:
    prompt = fields.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else list(fields.texts("prompt"))
    if prompt is None:
        fields.required_text("prompt")
    if fields.get("suffix") is not None:
        raise InferError(SUFFIX, "Suffix is not supported and can be achieved by preprocessing the prompt.")
    if len(prompts) > app.options.max_client_batch_size:
        most = app.options.max_client_batch_size
        raise InferError(BATCH_SIZE, f"Number of prompts exceeds the maximum allowed batch size of {most}")
    max_tokens = fields.whole("max_tokens")
    temperature, do_sample = _sampling(fields)
    return [
        GenerateRequest(
            inputs=each,
            max_new_tokens=_DEFAULT_COMPLETION_TOKENS if max_tokens is None else max_tokens,
            temperature=temperature,
            do_sample=do_sample,
            repetition_penalty=fields.number("repetition_penalty"),
            frequency_penalty=fields.number("frequency_penalty"),
            top_p=fields.number("top_p"),
            stop=fields.texts("stop"),
            seed=fields.seed(),
        )
        for each in prompts
    ]


def _chat_request(app: App, fields: Fields) -> GenerateRequest:
    temperature, do_sample = _sampling(fields)
    # TGI has no presence penalty; it turns one into this repetition penalty, an explicit 0 included.
    presence = fields.number("presence_penalty")
    max_tokens = fields.whole("max_tokens")
    return GenerateRequest(
        inputs=_template(app, fields),
        max_new_tokens=fields.whole("max_completion_tokens") if max_tokens is None else max_tokens,
        temperature=temperature,
        do_sample=do_sample,
        repetition_penalty=None if presence is None else presence + 2.0,
        frequency_penalty=fields.number("frequency_penalty"),
        top_p=fields.number("top_p"),
        stop=fields.texts("stop"),
        seed=fields.seed(),
        top_n_tokens=fields.whole("top_logprobs"),
        grammar=_wants_grammar(fields),
    )


def _wants_grammar(fields: Fields) -> bool:
    """Whether the answer has to have a form. Raises InferError for tools that cannot be used (infer/tool_grammar.rs)."""
    tools = fields.get("tools")
    wants_form = fields.get("response_format") is not None
    if wants_form and tools is not None:
        raise InferError(TOOL, "Tool error: Grammar and tools are mutually exclusive")
    choice = fields.get("tool_choice")
    if isinstance(tools, list) and isinstance(choice, dict):
        name = choice.get("function", {}).get("name") if isinstance(choice.get("function"), dict) else None
        if name not in [_tool_name(tool) for tool in tools]:
            raise InferError(TOOL, f"Tool error: Tool with name {name} not found")
    return wants_form or bool(tools and choice != "none")


def _tool_name(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _sampling(fields: Fields) -> tuple[float | None, bool]:
    temperature = fields.number("temperature")
    return (None, False) if temperature == 0 else (temperature, True)


def _template(app: App, fields: Fields) -> str:
    """What the chat template makes of the messages. Raises InferError if there is no template, BadBody for other shapes."""
    if app.options.no_chat_template:
        raise InferError(TEMPLATE, "Template error: template not found")
    messages = fields.get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise fields.mismatch("messages", messages, "a sequence of messages")
    lines = []
    for number, values in enumerate(messages):
        message = Fields(values, f"messages[{number}].")
        lines.append(f"<|{message.required_text('role')}|> {_content(app, message)}\n")
    return "".join(lines) + "<|assistant|>"


def _content(app: App, message: Fields) -> str:
    content = message.get("content")
    if not isinstance(content, list):
        return message.text("content") or ""
    parts = []
    for number, values in enumerate(content):
        if not isinstance(values, dict):
            raise message.mismatch("content", content, "a string or a sequence of parts")
        part = Fields(values, f"content[{number}].")
        if part.required_text("type") != "text":
            app.observer.refused("validation")
            raise invalid("image modality is not supported")
        parts.append(part.required_text("text"))
    return "".join(parts)


async def _stream(
    app: App,
    exchange: Exchange,
    requests: list[GenerateRequest],
    chunks: Callable[[Piece], list[dict[str, Any]]],
) -> None:
    cut_after = app.faults.number("cut-stream", 0)
    stream = exchange.start_stream(stream_headers(sum(len(request.inputs) for request in requests)))
    prepare = [prepared(app, request) for request in requests]
    async with aclosing(app.inference.stream(prepare)) as pieces_so_far:
        async for pieces in pieces_so_far:
            events: list[bytes] = []
            for piece in pieces:
                if isinstance(piece, Failure):
                    message = in_stream(piece.error).message
                    events.append(event({"error": {"message": message, "http_status_code": 422}}))
                    continue
                events += [event(chunk) for chunk in chunks(piece)]
                if piece.index == cut_after:
                    await stream.send(b"".join(events))
                    stream.cut()
                    return
            await stream.send(b"".join(events))
    await stream.send(_DONE)
    stream.close()


def _completion_chunk(app: App, piece: Piece) -> dict[str, Any]:
    choice = {"index": piece.stream, "text": piece.token.text, "logprobs": None, "finish_reason": ""}
    chunk = {**_envelope(app.options.served_model_name, "text_completion"), "choices": [choice]}
    if piece.last:
        choice["finish_reason"] = piece.generation.answer.finish_reason
        chunk["usage"] = _usage(piece.generation)
    return chunk


def _chat_chunks(
    model: str, request: GenerateRequest, piece: Piece, logprobs: bool, with_usage: bool
) -> list[dict[str, Any]]:
    envelope = _envelope(model, "chat.completion.chunk")
    choice = {
        "index": 0,
        "delta": {"role": "assistant", "content": "" if piece.token.special else piece.token.text},
        "logprobs": _logprobs(request, (piece.token,)) if logprobs else None,
        "finish_reason": _finish_reason(piece.generation) if piece.last else None,
    }
    chunks = [{**envelope, "choices": [choice], "usage": None}]
    if with_usage and piece.last:
        chunks.append({**envelope, "choices": [], "usage": _usage(piece.generation)})
    return chunks


def _chat_model(app: App, fields: Fields) -> str:
    """TGI takes any other name than "tgi" for an adapter's, and repeats it."""
    name = fields.text("model")
    return app.options.served_model_name if name in (None, "tgi") else str(name)


def _envelope(model: str, kind: str) -> dict[str, Any]:
    return {
        "object": kind,
        "id": "",
        "created": int(time.time()),  # noqa: TID251 - the simulator imports nothing of llmop
        "model": model,
        "system_fingerprint": FINGERPRINT,
    }


def _usage(*generations: Generation) -> dict[str, int]:
    prompt = sum(each.request.prompt_tokens for each in generations)
    completion = sum(len(each.answer.tokens) for each in generations)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _finish_reason(generation: Generation) -> str:
    reason = generation.answer.finish_reason
    return "stop" if reason == "eos_token" else reason


def _logprobs(request: GenerateRequest, tokens: tuple[Token, ...]) -> dict[str, Any]:
    count = request.top_n_tokens or 0
    return {
        "content": [
            {
                "token": token.text,
                "logprob": token.logprob,
                "top_logprobs": [
                    {"token": each.text, "logprob": each.logprob} for each in alternatives(token, count)
                ],
            }
            for token in tokens
        ]
    }
