"""What a client of an assistant asks, and what it gets, in OpenAI's chat form. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from llmop.workloads.bodies import object_of
from llmop.workloads.refusals import Refused, invalid
from llmop.workloads.retrieval.values import Found

NOT_FOUND = "I find nothing about this in the documents."
_BYTES_PER_TOKEN = 4  # where an engine does not say what it took
_MOST_MESSAGES = 2048
_NOT_TAKEN = ("tools", "tool_choice", "functions", "function_call", "audio", "modalities")


class Asked(NamedTuple):
    """`body` goes to the model, with other messages."""

    body: dict[str, Any]
    messages: list[dict[str, Any]]
    streams: bool
    wants_usage: bool


class Tokens(NamedTuple):
    """Of all calls together. `estimated`: the engine did not say it."""

    prompt: int
    completion: int = 0
    estimated: bool = False


class Head(NamedTuple):
    """What every answer begins with: its id, the assistant's name, when it was made (epoch seconds)."""

    id: str
    model: str
    created: float


def read(body: bytes) -> Asked:
    """Everything but messages, streams and tools is the model's engine's to check. Raises Refused."""
    wanted = object_of(body)
    for name in _NOT_TAKEN:
        if wanted.get(name) is not None:
            raise invalid(name, "is nothing that an assistant takes: it answers from its documents")
    if wanted.get("n") not in (None, 1):
        raise invalid("n", "must be 1: an assistant gives one answer")
    messages = wanted.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= _MOST_MESSAGES:
        raise invalid("messages", f"must be a list of 1 to {_MOST_MESSAGES} messages")
    for number, each in enumerate(messages):
        if not isinstance(each, dict) or not isinstance(each.get("role"), str):
            raise invalid(f"messages[{number}]", "must be an object with a role")
    if not any(each["role"] == "user" for each in messages):
        raise invalid("messages", "must hold a question: a message of the role user")
    streams = wanted.get("stream") or False
    if not isinstance(streams, bool):
        raise invalid("stream", "must be true or false")
    options = wanted.get("stream_options") or {}
    if not isinstance(options, dict):
        raise invalid("stream_options", "must be an object")
    return Asked(wanted, messages, streams, options.get("include_usage") is True)


def told(found: Sequence[Found], estimated: bool = False) -> dict[str, Any]:
    """What the answer stands on: the passages that the model was given, under the numbers that it cites."""
    citations = [
        {
            "index": number,
            "file_id": each.file,
            "filename": each.filename,
            "page": each.page,
            "score": round(each.score, 4),
            "text": each.text,
        }
        for number, each in enumerate(found, 1)
    ]
    return {"assistant": {"found": bool(found), "citations": citations, "estimated": estimated}}


def usage(tokens: Tokens) -> dict[str, int]:
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
    }


def completion(head: Head, text: str, found: Sequence[Found], tokens: Tokens) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": None,
        "finish_reason": "stop",
    }
    return _whole(head, [choice], found, tokens)


def of_model(head: Head, body: bytes, asked: Asked, found: Sequence[Found], searched: int) -> dict[str, Any]:
    """The model's answer as the assistant's. `searched` is what looking for passages took, in tokens. Raises Refused."""
    try:
        value = orjson.loads(body)
        choices = value["choices"]
        text = choices[0]["message"]["content"] or ""
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        text = None
    if not isinstance(text, str):
        raise Refused(502, "model_failed", "the model answered something that is no chat completion")
    tokens = added(value.get("usage"), searched) or Tokens(
        searched + len(orjson.dumps(asked.body)) // _BYTES_PER_TOKEN,
        len(text.encode()) // _BYTES_PER_TOKEN,
        True,
    )
    return _whole(head, choices, found, tokens)


def estimate(asked: Asked, searched: int, events: int) -> Tokens:
    """Of a stream whose engine has not said what it took: every event counts as a token."""
    return Tokens(searched + len(orjson.dumps(asked.body)) // _BYTES_PER_TOKEN, events, True)


def added(said: Any, searched: int) -> Tokens | None:
    """What a model's `usage` says, and what looking for passages took; None where it says nothing usable."""
    if not isinstance(said, dict):
        return None
    prompt, completion = said.get("prompt_tokens"), said.get("completion_tokens")
    if type(prompt) is int and type(completion) is int and prompt >= 0 and completion >= 0:
        return Tokens(prompt + searched, completion)
    return None


def chunk(head: Head, choices: Sequence[Any]) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": "chat.completion.chunk",
        "created": int(head.created),
        "model": head.model,
        "choices": list(choices),
    }


def said(text: str, finish_reason: str | None = None) -> list[dict[str, Any]]:
    """Choices of a chunk with a text of our own."""
    delta = {} if finish_reason else {"role": "assistant", "content": text}
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


def _whole(head: Head, choices: Sequence[Any], found: Sequence[Found], tokens: Tokens) -> dict[str, Any]:
    """`usage` stands last, where the gateway looks for it."""
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": int(head.created),
        "model": head.model,
        "choices": list(choices),
        "llmop": told(found, tokens.estimated),
        "usage": usage(tokens),
    }
