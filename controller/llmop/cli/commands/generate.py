"""llmctl generate."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from llmop.cli.errors import UsageError
from llmop.cli.session import Session, context_option, say
from llmop.cli.talking import (
    Gateway,
    GatewayError,
    Speaker,
    address_options,
    gateway,
    model,
    stdin_text,
    under,
)

_NOT_SPOKEN = 422


@click.command("generate")
@click.argument("prompt", required=False)
@address_options
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=256, metavar="N", help="256 by default."
)
@click.option(
    "--temperature", type=click.FloatRange(min=0), metavar="T", help="0 takes the likeliest token each time."
)
@click.option(
    "--top-p",
    type=click.FloatRange(min=0, max=1, min_open=True),
    metavar="P",
    help="Only tokens of this probability mass.",
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The same seed gives the same text.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated.")
@click.option(
    "--api",
    type=click.Choice(["auto", "tgi", "openai"]),
    default="auto",
    help="/generate_stream of TGI, or /v1/completions of OpenAI; auto takes what the model speaks.",
)
@click.option("--stats", is_flag=True, help="Say on stderr how fast it came.")
@context_option
@click.pass_obj
def command(
    session: Session,
    /,
    prompt: str | None,
    url: str | None,
    key_file: str | None,
    wanted: str | None,
    timeout: float,
    api: str,
    stats: bool,
    **parameters: Any,
) -> None:
    """Let a model go on with a text, and print it as it comes. The text is an argument, or comes from stdin.

    It talks to a gateway, like every other client.
    """
    if prompt in (None, "-"):
        if sys.stdin.isatty():
            raise UsageError("say what to go on with: llmctl generate 'Once upon a time'")
        prompt = stdin_text()
    assert prompt is not None
    if not prompt:
        raise UsageError("the text to go on with is empty")
    found = gateway(session, url, key_file, timeout)
    name = model(found, wanted)
    speaker = Speaker()
    began, first, count = time.monotonic(), 0.0, 0
    try:
        for text in _texts(found, name, api, prompt, parameters):
            first = first or time.monotonic()
            count += 1
            speaker.say(text)
    finally:
        speaker.end()
    if stats and count:
        now = time.monotonic()
        rate = f", then {(count - 1) / (now - first):.1f} per second" if count > 1 and now > first else ""
        say(f"{count} pieces; the first after {first - began:.2f}s{rate}")


def _texts(found: Gateway, name: str, api: str, prompt: str, parameters: dict[str, Any]) -> Iterator[str]:
    if api != "openai":
        try:
            yield from _tgi(found, name, prompt, parameters)
            return
        except GatewayError as error:
            if api == "tgi" or error.status != _NOT_SPOKEN or "does not speak" not in str(error):
                raise
    yield from _openai(found, name, prompt, parameters)


def _tgi(found: Gateway, name: str, prompt: str, parameters: dict[str, Any]) -> Iterator[str]:
    wanted = {
        "max_new_tokens": parameters["max_new_tokens"],
        # TGI takes no temperature of 0: not to sample is its word for that.
        "temperature": parameters["temperature"] or None,
        "top_p": parameters["top_p"] if parameters["top_p"] != 1 else None,
        "seed": parameters["seed"],
        "stop": list(parameters["stop"]),
    }
    body = {
        "inputs": prompt,
        "parameters": {key: value for key, value in wanted.items() if value not in (None, [])},
    }
    for event in found.events(under(name, "/generate_stream"), body):
        token = event.get("token") or {}
        if not token.get("special"):
            yield str(token.get("text", ""))


def _openai(found: Gateway, name: str, prompt: str, parameters: dict[str, Any]) -> Iterator[str]:
    wanted = {
        "max_tokens": parameters["max_new_tokens"],
        "temperature": parameters["temperature"],
        "top_p": parameters["top_p"],
        "seed": parameters["seed"],
        "stop": list(parameters["stop"]),
    }
    body = {"model": name, "prompt": prompt, "stream": True}
    body |= {key: value for key, value in wanted.items() if value not in (None, [])}
    for event in found.events(under(name, "/v1/completions"), body):
        for choice in event.get("choices") or ():
            yield str(choice.get("text") or "")
