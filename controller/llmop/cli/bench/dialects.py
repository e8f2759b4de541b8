"""The bodies of requests and the events of answers: OpenAI's chat and completions, TGI's generate_stream. Pure."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from llmop.cli.bench.loads import Lengths


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """What an event says: whether a piece of the answer, the tokens that the server counted of prompt and answer (None = it did not say),
    and the sentence of an error ("" = none).
    """

    is_piece: bool = False
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""


PIECE = Heard(is_piece=True)
NOTHING = Heard()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """`path` is where it is spoken; `body` makes a request of model, prompt, lengths and whether to go on behind the end of the text;
    `hear` reads an event.
    """

    path: str
    body: Callable[[str, str, Lengths, bool], dict[str, Any]]
    hear: Callable[[Mapping[str, Any]], Heard]


def _chat_body(model: str, prompt: str, lengths: Lengths, ignore_eos: bool) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], **_openai(model, lengths, ignore_eos)}


def _completions_body(model: str, prompt: str, lengths: Lengths, ignore_eos: bool) -> dict[str, Any]:
    return {"prompt": prompt, **_openai(model, lengths, ignore_eos)}


def _openai(model: str, lengths: Lengths, ignore_eos: bool) -> dict[str, Any]:
    return {
        "model": model,
        "max_tokens": lengths.output,
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"ignore_eos": True} if ignore_eos else {}),
    }


def _tgi_body(model: str, prompt: str, lengths: Lengths, ignore_eos: bool) -> dict[str, Any]:
    return {
        "inputs": prompt,
        # Only with details does the last event say how many tokens there were.
        "parameters": {"max_new_tokens": lengths.output, "details": True, "decoder_input_details": False},
    }


def _hear_openai(event: Mapping[str, Any], *, chat: bool) -> Heard:
    if event.get("error"):
        return Heard(error=_sentence(event))
    usage = event.get("usage") or {}
    is_piece = False
    for choice in event.get("choices") or ():
        if chat:
            delta = choice.get("delta") or {}
            # Models that think aloud send that first.
            said = delta.get("content") or delta.get("reasoning_content") or delta.get("tool_calls")
        else:
            said = choice.get("text")
        is_piece = is_piece or bool(said)
    if usage:
        return Heard(is_piece, _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    return PIECE if is_piece else NOTHING


def _hear_tgi(event: Mapping[str, Any]) -> Heard:
    if event.get("error"):
        return Heard(error=_sentence(event))
    details = event.get("details") or {}
    is_piece = bool(event.get("token"))
    if details:
        return Heard(is_piece, _count(details.get("input_length")), _count(details.get("generated_tokens")))
    return PIECE if is_piece else NOTHING


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _sentence(event: Mapping[str, Any]) -> str:
    error = event["error"]
    return str((error.get("message") if isinstance(error, dict) else error) or error)


DIALECTS = {
    "chat": Dialect(
        path="/v1/chat/completions", body=_chat_body, hear=lambda event: _hear_openai(event, chat=True)
    ),
    "completions": Dialect(
        path="/v1/completions", body=_completions_body, hear=lambda event: _hear_openai(event, chat=False)
    ),
    "tgi": Dialect(path="/generate_stream", body=_tgi_body, hear=_hear_tgi),
}
