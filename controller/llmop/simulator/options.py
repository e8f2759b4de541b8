"""Settings of one simulator: command line flags, each also an environment variable LLMOP_SIM_<FLAG>."""

from __future__ import annotations

import argparse
import ipaddress
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import timing
from .faults import Fault, parse_fault
from .script import Rule, read

_ENV_PREFIX = "LLMOP_SIM_"
_SWITCHES = ("admin", "no_chat_template")
# What an option is where it is not given, for each engine that the simulator can be. TGI: launcher/src/main.rs. vLLM:
# config/vllm.py and config/scheduler.py; a request beyond `max_concurrent_requests` is refused as beyond --max-num-queued-reqs, 0
# means never. TEI: docs/source/en/cli_arguments.md; it waits for its last request however long that takes.
DEFAULTS: dict[str, dict[str, float]] = {
    "tgi": {
        "max_concurrent_requests": 128,
        "max_client_batch_size": 4,
        "max_batch_size": 0,
        "graceful_timeout": 90.0,
    },
    "vllm": {
        "max_concurrent_requests": 0,
        "max_client_batch_size": 0,
        "max_batch_size": 128,
        "graceful_timeout": 0.0,
    },
    "tei": {
        "max_concurrent_requests": 512,
        "max_client_batch_size": 32,
        "max_batch_size": 0,
        "graceful_timeout": 86400.0,
    },
}


_INSTANT = timing.Timing(
    prefill_tokens_per_second=0.0, decode_base_ms=0.0, decode_per_sequence_ms=0.0, kv_tokens=1_000_000
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Everything that can be set. Names, defaults and limits follow `text-generation-launcher` where it has them.

    Times are in seconds, except the decode times (milliseconds). `port` 0 takes a free one; `max_concurrent_requests` 0 and
    `max_batch_size` 0 mean no limit.
    `prometheus_port`, `master_port` and `shard_uds_path` are None where not given; see `exclusive.py`.
    """

    personality: str
    hostname: str
    port: int
    model_id: str
    served_model_name: str
    api_key: str | None
    load_seconds: float
    max_concurrent_requests: int
    max_input_tokens: int
    max_total_tokens: int
    max_best_of: int
    max_stop_sequences: int
    max_top_n_tokens: int
    max_client_batch_size: int
    max_batch_size: int
    payload_limit: int
    embedding_size: int
    no_chat_template: bool
    prefill_tokens_per_second: float
    decode_base_ms: float
    decode_per_sequence_ms: float
    kv_tokens: int
    answer_tokens: int
    answers: tuple[Rule, ...]
    graceful_timeout: float
    seed: int
    faults: tuple[Fault, ...]
    admin: bool
    prometheus_port: int | None
    master_port: int | None
    shard_uds_path: str | None


def parse_options(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Read flags and environment (a flag wins).

    Raises SystemExit(2), after one line on stderr that names the flag, the value and what is allowed.
    """
    parser = _parser()
    known = {action.dest: action for action in parser._actions}
    defaults: list[str] = []
    for name, value in sorted(environment.items()):
        if not name.startswith(_ENV_PREFIX):
            continue
        action = known.get(name.removeprefix(_ENV_PREFIX).lower())
        if action is None or action.dest == "help":
            parser.error(f"environment variable {name} is not a setting; see --help")
        defaults += _as_flags(parser, action, name, value)
    values = parser.parse_args([*defaults, *arguments])
    return _options(parser, values)


def read_api_key(path: str) -> str:
    """The key in a file that only its owner may read.

    Raises ValueError if the file is missing, empty, or open to others.
    """
    try:
        mode = Path(path).stat().st_mode
        key = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ValueError(f"cannot read {path!r}: {reason}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ValueError(f"{path!r} has mode {stat.S_IMODE(mode):04o}; make it private with chmod 600")
    if not key:
        raise ValueError(f"{path!r} is empty; write the key into it")
    return key


def _as_flags(parser: argparse.ArgumentParser, action: argparse.Action, name: str, value: str) -> list[str]:
    flag = action.option_strings[0]
    if action.dest in _SWITCHES:
        if value.lower() not in ("", "0", "1", "false", "true"):
            parser.error(f"environment variable {name}: {value!r} is not true or false")
        return [flag] if value.lower() in ("1", "true") else []
    if action.dest == "fault":
        return [f"{flag}={spec}" for spec in value.split()]
    return [f"{flag}={value}"]


def _options(parser: argparse.ArgumentParser, values: argparse.Namespace) -> Options:
    speed = values.timing or _INSTANT

    def timed(name: str) -> Any:
        value = getattr(values, name)
        return getattr(speed, name) if value is None else value

    kv_tokens = int(timed("kv_tokens"))
    total = values.max_total_tokens if values.max_total_tokens is not None else min(4096, kv_tokens)
    if total > kv_tokens:
        parser.error(f"--max-total-tokens {total} is above --kv-tokens {kv_tokens}: it could never run")
    most_input = values.max_input_tokens if values.max_input_tokens is not None else total - 1
    if most_input >= total:
        parser.error(f"--max-input-tokens {most_input} must be below --max-total-tokens {total}")
    api_key = None
    if values.api_key_file is not None:
        try:
            api_key = read_api_key(values.api_key_file)
        except ValueError as error:
            parser.error(f"argument --api-key-file: {error}")
    defaults = DEFAULTS[values.personality]

    def given(name: str) -> Any:
        value = getattr(values, name)
        return defaults[name] if value is None else value

    return Options(
        personality=values.personality,
        hostname=values.hostname,
        port=values.port,
        model_id=values.model_id,
        served_model_name=values.served_model_name or values.model_id,
        api_key=api_key,
        load_seconds=values.load_seconds,
        max_concurrent_requests=int(given("max_concurrent_requests")),
        max_input_tokens=most_input,
        max_total_tokens=total,
        max_best_of=values.max_best_of,
        max_stop_sequences=values.max_stop_sequences,
        max_top_n_tokens=values.max_top_n_tokens,
        max_client_batch_size=int(given("max_client_batch_size")),
        max_batch_size=int(given("max_batch_size")),
        payload_limit=values.payload_limit,
        embedding_size=values.embedding_size,
        no_chat_template=values.no_chat_template,
        prefill_tokens_per_second=timed("prefill_tokens_per_second") / values.time_scale,
        decode_base_ms=timed("decode_base_ms") * values.time_scale,
        decode_per_sequence_ms=timed("decode_per_sequence_ms") * values.time_scale,
        kv_tokens=kv_tokens,
        answer_tokens=values.answer_tokens,
        answers=values.answers or (),
        graceful_timeout=float(given("graceful_timeout")),
        seed=values.seed,
        faults=tuple(values.fault),
        admin=values.admin,
        prometheus_port=values.prometheus_port,
        master_port=values.master_port,
        shard_uds_path=values.shard_uds_path,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmop.simulator",
        description="An inference engine without a model. Every flag is also an environment variable LLMOP_SIM_<FLAG>.",
        allow_abbrev=False,
    )

    def add(flag: str, kind: Callable[[str], Any], default: object, text: str) -> None:
        parser.add_argument(flag, type=kind, default=default, help=f"{text} (default: {default})")

    def add_as_engine(flag: str, kind: Callable[[str], Any], text: str) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        own = ", ".join(f"{engine} {defaults[name]:g}" for engine, defaults in DEFAULTS.items())
        parser.add_argument(flag, type=kind, default=None, help=f"{text} (default: {own})")

    def add_timed(flag: str, kind: Callable[[str], Any], text: str) -> None:
        own = getattr(_INSTANT, flag.removeprefix("--").replace("-", "_"))
        parser.add_argument(flag, type=kind, default=None, help=f"{text} (default: {own})")

    parser.add_argument(
        "--personality", choices=list(DEFAULTS), default="tgi", help="the engine that it is (default: tgi)"
    )
    add("--hostname", _address, "127.0.0.1", "IP address to listen on")
    add("--port", _port, 3000, "port to listen on; 0 takes a free one and prints it")
    add("--model-id", _word, "simulated", "name of the model")
    add(
        "--served-model-name",
        _word,
        None,
        "name in /v1/models and in OpenAI answers; the model id without it",
    )
    add("--api-key-file", str, None, "file (mode 0600) with the key that requests must carry")
    add("--load-seconds", _positive_or_zero, 0.0, "time to load the model; the port opens after it")
    add_as_engine(
        "--max-concurrent-requests", _count, "requests queued or running; more are answered 429, by vllm 503"
    )
    add("--max-input-tokens", _count, None, "longest prompt; one below --max-total-tokens without it")
    add(
        "--max-total-tokens",
        _count,
        None,
        "prompt plus answer; 4096 without it, or --kv-tokens if that is less",
    )
    add("--max-best-of", _count, 2, "limit of `best_of`")
    add("--max-stop-sequences", _count, 4, "limit of `stop`")
    add("--max-top-n-tokens", _count, 5, "limit of `top_n_tokens`")
    add_as_engine("--max-client-batch-size", _count, "prompts or inputs in one request")
    add_as_engine("--max-batch-size", _count, "sequences that run at once; 0 is as many as fit into memory")
    add("--payload-limit", _count, 2_000_000, "largest request body, in bytes")
    parser.add_argument(
        "--timing",
        type=_timing,
        metavar="NAME",
        help="be as fast as a model on GPUs would be by calculation, such as llama-3.1-8b/a100 or llama-3.1-70b/a100x4; "
        "sets the four that follow where they are not given (default: none)",
    )
    add_timed("--prefill-tokens-per-second", _positive_or_zero, "speed of reading prompts; 0 takes no time")
    add_timed("--decode-base-ms", _positive_or_zero, "time of one decode step")
    add_timed("--decode-per-sequence-ms", _positive_or_zero, "added to a decode step per running sequence")
    add_timed("--kv-tokens", _tokens, "tokens that fit into memory; requests wait until theirs fit")
    add("--time-scale", _scale, 1.0, "prompts and steps take so many times longer")
    add("--answer-tokens", _count, 64, "typical length of an answer whose request sets no limit")
    parser.add_argument(
        "--answers",
        type=_script,
        metavar="FILE",
        help='JSON file of answers: [{"contains": "part of a prompt", "text": "answer"}]; the first that fits (default: none)',
    )
    add_as_engine("--graceful-timeout", _positive_or_zero, "time to finish requests after SIGTERM")
    add("--embedding-size", _count, 384, "numbers in an embedding of tei")
    parser.add_argument("--no-chat-template", action="store_true", help="be a model without a chat template")
    add("--seed", int, 0, "answers depend on it and on the prompt")
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="SPEC",
        help="a fault, may be repeated: crash@load, hang@request:3, cut-stream@token:5, slow-load:10, ...",
    )
    parser.add_argument("--admin", action="store_true", help="allow POST and DELETE /simulator/fault")
    add("--prometheus-port", _port, None, "must be free at the start, as for TGI")
    add("--master-port", _port, None, "held while the process lives, as by TGI's shards")
    add("--shard-uds-path", str, None, "prefix of the Unix socket of the (one) shard")
    return parser


def _checked(kind: Callable[[str], Any], allowed: Callable[[Any], bool], words: str) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not allowed(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return convert


def _script(text: str) -> tuple[Rule, ...]:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _timing(text: str) -> timing.Timing:
    try:
        return timing.named(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


_address = _checked(lambda text: str(ipaddress.ip_address(text)), bool, "an IP address such as 127.0.0.1")
_port = _checked(int, lambda value: 0 <= value <= 65535, "a port number from 0 to 65535")
_count = _checked(int, lambda value: value >= 1, "a whole number above 0")
_tokens = _checked(int, lambda value: value >= 2, "a whole number above 1")
_positive_or_zero = _checked(float, lambda value: 0 <= value < 1e12, "a number of 0 or more")
_scale = _checked(float, lambda value: 0.001 <= value <= 1000, "a number from 0.001 to 1000")
_word = _checked(str, lambda value: bool(value.strip()), "a name")
