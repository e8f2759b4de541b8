"""The native generation request, and the checks the router makes before it queues one.

Limits and texts follow TGI's router/src/validation.rs.
"""

from __future__ import annotations

from dataclasses import dataclass

from .body import Fields
from .errors import InferError, invalid
from .options import Options
from .request import ValidRequest
from .text import count_tokens, natural_length, split_tokens

# An answer without a limit reserves memory in pieces of so many tokens (validation.rs, DEFAULT_GENERATION_LENGTH).
_DEFAULT_GENERATION_LENGTH = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateRequest:
    """A request as it came, in TGI's words. `max_new_tokens` None means: up to the limit of the server."""

    inputs: str
    max_new_tokens: int | None = None
    best_of: int | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    return_full_text: bool = False
    stop: tuple[str, ...] = ()
    truncate: int | None = None
    details: bool = False
    decoder_input_details: bool = False
    seed: int | None = None
    top_n_tokens: int | None = None
    grammar: bool = False


def read_generate_request(fields: Fields) -> GenerateRequest:
    """The body of /generate, /generate_stream and /. Raises BadBody."""
    parameters = fields.object("parameters")
    grammar = parameters.get("grammar")
    return GenerateRequest(
        inputs=fields.required_text("inputs"),
        max_new_tokens=parameters.whole("max_new_tokens"),
        best_of=parameters.whole("best_of"),
        temperature=parameters.number("temperature"),
        repetition_penalty=parameters.number("repetition_penalty"),
        frequency_penalty=parameters.number("frequency_penalty"),
        top_k=parameters.signed("top_k"),
        top_p=parameters.number("top_p"),
        typical_p=parameters.number("typical_p"),
        do_sample=parameters.flag("do_sample"),
        return_full_text=parameters.flag("return_full_text"),
        stop=parameters.texts("stop"),
        truncate=parameters.whole("truncate"),
        details=parameters.flag("details"),
        decoder_input_details=parameters.flag("decoder_input_details"),
        seed=parameters.seed(),
        top_n_tokens=parameters.whole("top_n_tokens"),
        grammar=grammar is not None,
    )


def validate(request: GenerateRequest, options: Options, copy: int = 0) -> ValidRequest:
    """Check values against the limits. Raises InferError (422). `copy` counts the sequences of one `best_of`."""
    _validate_sampling(request)
    if request.max_new_tokens == 0:
        raise invalid("`max_new_tokens` must be strictly positive")
    if len(request.stop) > options.max_stop_sequences:
        raise invalid(
            f"`stop` supports up to {options.max_stop_sequences} stop sequences. Given: {len(request.stop)}"
        )
    top_n_tokens = request.top_n_tokens or 0
    if top_n_tokens > options.max_top_n_tokens:
        raise invalid(f"`top_n_tokens` must be >= 0 and <= {options.max_top_n_tokens}. Given: {top_n_tokens}")
    if not request.inputs:
        raise invalid("`inputs` cannot be empty")
    truncate = request.truncate
    if truncate is not None and not 0 < truncate <= options.max_input_tokens:
        raise invalid(
            f"`truncate` must be strictly positive and less than {options.max_input_tokens}. Given: {truncate}"
        )
    prompt, prompt_tokens = _cut(request.inputs, truncate)
    valid = _size(request, options, prompt, prompt_tokens, copy, top_n_tokens)
    if request.grammar:
        raise invalid("grammar is not supported")
    return valid


def best_of(request: GenerateRequest, options: Options) -> int:
    """How many sequences a request wants; raises InferError (422) where that is more than allowed."""
    count = request.best_of or 1
    if options.max_best_of == 1 and count != 1:
        raise invalid("`best_of` != 1 is not allowed for this endpoint")
    if count > options.max_best_of:
        raise invalid(f"`best_of` must be > 0 and <= {options.max_best_of}. Given: {count}")
    return count


def refuse_in_stream(request: GenerateRequest) -> InferError | None:
    """What a stream cannot do, checked before anything else."""
    if (request.best_of if request.best_of is not None else 1) != 1:
        return invalid("`best_of` != 1 is not supported when streaming tokens")
    if request.decoder_input_details:
        return invalid("`decoder_input_details` == true is not supported when streaming tokens")
    return None


def _validate_sampling(request: GenerateRequest) -> None:
    sampling = request.do_sample or any(
        value is not None for value in (request.temperature, request.top_k, request.top_p, request.typical_p)
    )
    several = (request.best_of or 1) > 1
    if several and not sampling:
        raise invalid("you must use sampling when `best_of` is > 1")
    if request.temperature is not None and request.temperature <= 0:
        raise invalid("`temperature` must be strictly positive")
    if request.repetition_penalty is not None and request.repetition_penalty <= 0:
        raise invalid("`repetition_penalty` must be strictly positive")
    if request.frequency_penalty is not None and not -2 <= request.frequency_penalty <= 2:
        raise invalid("`frequency_penalty` must be >= -2.0 and <= 2.0")
    if request.top_p is not None and not 0 < request.top_p < 1:
        raise invalid("`top_p` must be > 0.0 and < 1.0")
    if request.typical_p is not None and not 0 < request.typical_p < 1:
        raise invalid("`typical_p` must be > 0.0 and < 1.0")
    if request.top_k is not None and request.top_k <= 0:
        raise invalid("`top_k` must be strictly positive")
    if several and request.seed is not None:
        raise invalid("`seed` must not be set when `best_of` > 1")


def _cut(inputs: str, truncate: int | None) -> tuple[str, int]:
    prompt_tokens = count_tokens(inputs)
    if truncate is None or prompt_tokens <= truncate:
        return inputs, prompt_tokens
    return "".join(split_tokens(inputs)[-truncate:]), truncate


def _size(
    request: GenerateRequest,
    options: Options,
    prompt: str,
    prompt_tokens: int,
    copy: int,
    top_n_tokens: int,
) -> ValidRequest:
    natural = None
    text_seed = f"{options.seed}" if request.seed is None else f"{options.seed}/{request.seed}"
    if copy:
        text_seed += f"#{copy}"
    if request.max_new_tokens is not None:
        most = reserved = request.max_new_tokens
    else:
        most = max(0, options.max_total_tokens - prompt_tokens)
        reserved = min(most, _DEFAULT_GENERATION_LENGTH)
        natural = natural_length(prompt, text_seed, options.answer_tokens)
    if prompt_tokens + most > options.max_total_tokens:
        raise invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {options.max_total_tokens}. "
            f"Given: {prompt_tokens} `inputs` tokens and {most} `max_new_tokens`"
        )
    if prompt_tokens > options.max_input_tokens:
        raise invalid(
            f"`inputs` must have less than {options.max_input_tokens} tokens. Given: {prompt_tokens}"
        )
    sampling_seed = request.seed if request.seed is not None else options.seed
    return ValidRequest(
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        most=most,
        natural=natural,
        reserved_tokens=prompt_tokens + reserved,
        stop=request.stop,
        text_seed=text_seed,
        shown_seed=sampling_seed if request.do_sample else None,
        top_n_tokens=top_n_tokens,
    )
