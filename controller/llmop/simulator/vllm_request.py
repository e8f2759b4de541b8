"""Requests of vLLM's OpenAI routes, read and checked as vLLM does (vllm/entrypoints/openai/, vllm/sampling_params.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .options import Options
from .request import ValidRequest
from .text import count_tokens, natural_length
from .vllm_errors import VllmError, bad_shape, bad_value, unknown_model, wrong_content_type

# vllm/entrypoints/openai/completion/protocol.py
_COMPLETION_TOKENS = 16


class Body:
    """The JSON object of a request. A getter raises VllmError for another type, as pydantic would; null is absent."""

    def __init__(self, values: dict[str, Any], path: str = "body") -> None:
        self._values = values
        self._path = path

    def get(self, name: str) -> Any:
        """The value as it came, None where absent."""
        return self._values.get(name)

    def missing(self, *names: str) -> VllmError:
        """The error for fields that must be there."""
        given = f"<dict of {len(self._values)} items>"
        return bad_shape(
            *(
                {"type": "missing", "loc": f"{self._path}.{name}", "msg": "Field required", "input": given}
                for name in names
            )
        )

    def text(self, name: str) -> str | None:
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, value, "string_type", "Input should be a valid string")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, value, "bool_type", "Input should be a valid boolean")
        return bool(value)

    def whole(self, name: str) -> int | None:
        """Text that reads as a number is one."""
        value = self.get(name)
        if isinstance(value, str):
            try:
                return int(value)
            except ValueError:
                message = "Input should be a valid integer, unable to parse string as an integer"
                raise self._wrong(name, value, "int_parsing", message) from None
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise self._wrong(name, value, "int_type", "Input should be a valid integer")

    def number(self, name: str) -> float | None:
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, value, "float_type", "Input should be a valid number")
        return float(value)

    def object(self, name: str) -> Body | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(name, value, "model_type", "Input should be a valid dictionary")
        return Body(value, f"{self._path}.{name}")

    def texts(self, name: str) -> tuple[str, ...]:
        """A string, or a list of them."""
        value = self.get(name)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self._wrong(name, value, "string_type", "Input should be a valid string")
        return tuple(value)

    def tokens(self, name: str) -> tuple[int, ...]:
        """A list of ids, which must be there."""
        value = self.get(name)
        if value is None:
            raise self.missing(name)
        if not isinstance(value, list) or not all(_is_token(each) for each in value):
            raise self._wrong(name, value, "int_type", "Input should be a valid integer")
        return tuple(value)

    def _wrong(self, name: str, value: Any, kind: str, message: str) -> VllmError:
        shown = value if isinstance(value, str) else f"<{type(value).__name__}>"
        if isinstance(value, list | dict):
            shown = f"<{type(value).__name__} of {len(value)} items>"
        elif isinstance(value, int | float):
            shown = str(value)
        return bad_shape({"type": kind, "loc": f"{self._path}.{name}", "msg": message, "input": shown})


def read_body(content_type: str, data: bytes) -> Body:
    """Raises VllmError for what is not a JSON object."""
    if content_type.lower().partition(";")[0] != "application/json":
        raise wrong_content_type()
    try:
        values = json.loads(data)
    except json.JSONDecodeError as error:
        raise bad_shape(
            {
                "type": "json_invalid",
                "loc": f"body.{error.pos}",
                "msg": "JSON decode error",
                "input": "<dict of 0 items>",
                "ctx": {"error": error.msg},
            }
        ) from error
    except (ValueError, RecursionError) as error:
        raise VllmError("There was an error parsing the body", kind="Bad Request") from error
    if not isinstance(values, dict):
        raise bad_shape(
            {
                "type": "model_attributes_type",
                "loc": "body",
                "msg": "Input should be a valid dictionary or object to extract fields from",
                "input": f"<{type(values).__name__}>",
            }
        )
    return Body(values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What completions and chats have in common. `logprobs` is None where none are wanted, else how many alternatives."""

    choices: int
    stream: bool
    usage: bool
    usage_all_along: bool
    logprobs: int | None
    requests: tuple[ValidRequest, ...]


def completion(body: Body, options: Options) -> Wishes:
    """POST /v1/completions. Raises VllmError."""
    _check_stream_options(body)
    _check_model(body, options)
    prompts = _prompts(body)
    most = body.whole("max_tokens")
    logprobs = body.whole("logprobs")
    return _wishes(
        body, options, prompts, _COMPLETION_TOKENS if most is None else most, logprobs, most_by_itself=False
    )


def chat(body: Body, options: Options) -> Wishes:
    """POST /v1/chat/completions. Raises VllmError."""
    _check_stream_options(body)
    if body.get("messages") is None:
        raise body.missing("messages")
    _check_model(body, options)
    if options.no_chat_template:
        raise VllmError(
            "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template "
            "if the tokenizer does not define one."
        )
    most = body.whole("max_completion_tokens")
    if most is None:
        most = body.whole("max_tokens")
    logprobs = (body.whole("top_logprobs") or 0) if body.flag("logprobs") else None
    prompt = chat_prompt(body)
    return _wishes(
        body, options, ((prompt, count_tokens(prompt)),), most, logprobs, most_by_itself=most is None
    )


def chat_prompt(body: Body) -> str:
    """The messages behind their roles, and the mark of the answer's beginning. Raises VllmError."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise bad_shape(
            {
                "type": "list_type",
                "loc": "body.messages",
                "msg": "Input should be a valid list",
                "input": f"<{type(messages).__name__}>",
            }
        )
    lines = []
    for number, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str):
            raise Body(message, f"body.messages.{number}").missing("role")
        content = message.get("content") or ""
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            if len(parts) != len(content) or not all(isinstance(part, str) for part in parts):
                raise VllmError("the simulated model is not a multimodal model")
            content = "\n".join(str(part) for part in parts)
        lines.append(f"<|{role}|> {content}\n")
    return "".join(lines) + "<|assistant|>"


def _check_stream_options(body: Body) -> None:
    if body.get("stream_options") and not body.get("stream"):
        raise bad_value("Stream options can only be defined when `stream=True`.", "stream_options")


def _check_model(body: Body, options: Options) -> None:
    name = body.text("model")
    if name and name != options.served_model_name:
        raise unknown_model(name, options.served_model_name)


def _prompts(body: Body) -> tuple[tuple[str, int], ...]:
    """Each prompt with its number of tokens: a text, tokens, or a list of either."""
    prompt = body.get("prompt")
    if prompt is None or prompt == [] or prompt == "":
        raise bad_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if isinstance(prompt, str):
        return ((prompt, count_tokens(prompt)),)
    if isinstance(prompt, list) and all(isinstance(each, str) for each in prompt):
        return tuple((each, count_tokens(each)) for each in prompt)
    if isinstance(prompt, list) and all(_is_token(each) for each in prompt):
        return ((" ".join(map(str, prompt)), len(prompt)),)
    if isinstance(prompt, list) and all(
        isinstance(each, list) and each and all(_is_token(token) for token in each) for each in prompt
    ):
        return tuple((" ".join(map(str, each)), len(each)) for each in prompt)
    raise bad_shape(
        {
            "type": "string_type",
            "loc": "body.prompt",
            "msg": "Input should be a valid string",
            "input": f"<{type(prompt).__name__}>",
        }
    )


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _wishes(
    body: Body,
    options: Options,
    prompts: tuple[tuple[str, int], ...],
    most: int | None,
    logprobs: int | None,
    *,
    most_by_itself: bool,
) -> Wishes:
    limit = options.max_total_tokens
    if most is not None and most > limit:
        raise bad_value(
            f"max_tokens={most} cannot be greater than max_model_len={limit}. Please request fewer output tokens.",
            "max_tokens",
            most,
        )
    _check_sampling(body, most)
    choices = body.whole("n")
    stream_options = body.object("stream_options")
    usage = stream_options is not None and stream_options.flag("include_usage")
    seed = body.whole("seed")
    requests = []
    for prompt, tokens in prompts:
        if tokens > limit:
            # vLLM stops counting there.
            raise bad_value(
                f"This model's maximum context length is {limit} tokens. However, your prompt contains at least "
                f"{limit + 1} input tokens, which exceeds this limit even without any output tokens. "
                "Please reduce the length of the input prompt.",
                "input_tokens",
                limit + 1,
            )
        requests += [
            _request(body, options, prompt, tokens, most, seed, copy, most_by_itself=most_by_itself)
            for copy in range(1 if choices is None else choices)
        ]
    return Wishes(
        choices=1 if choices is None else choices,
        stream=body.flag("stream"),
        usage=usage,
        usage_all_along=usage
        and stream_options is not None
        and stream_options.flag("continuous_usage_stats"),
        logprobs=logprobs,
        requests=tuple(requests),
    )


def _check_sampling(body: Body, most: int | None) -> None:
    temperature, top_p, choices = body.number("temperature"), body.number("top_p"), body.whole("n")
    if choices is not None and choices < 1:
        raise VllmError(f"n must be at least 1, got {choices}.")
    if temperature is not None and temperature < 0:
        raise bad_value(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if top_p is not None and not 0 < top_p <= 1:
        raise bad_value(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    if most is not None and most < 1:
        raise bad_value(f"max_tokens must be at least 1, got {most}.", "max_tokens", most)


def _request(
    body: Body,
    options: Options,
    prompt: str,
    tokens: int,
    most: int | None,
    seed: int | None,
    copy: int,
    *,
    most_by_itself: bool,
) -> ValidRequest:
    text_seed = f"{options.seed}" if seed is None else f"{options.seed}/{seed}"
    if copy:
        text_seed += f"#{copy}"
    room = max(1, options.max_total_tokens - tokens)
    most = room if most is None else min(most, room)
    natural = natural_length(prompt, text_seed, options.answer_tokens) if most_by_itself else None
    if body.flag("ignore_eos"):
        natural = None
    # vLLM takes memory as the answer grows, so what will be is what counts.
    length = most if natural is None else min(most, natural + 1)
    return ValidRequest(
        prompt=prompt,
        prompt_tokens=tokens,
        most=most,
        natural=natural,
        reserved_tokens=tokens + length,
        stop=body.texts("stop"),
        text_seed=text_seed,
    )
