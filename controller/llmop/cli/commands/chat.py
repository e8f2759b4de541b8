"""llmctl chat."""

import sys
from typing import Any

import click

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import Session, context_option, out, say
from llmop.cli.talking import Gateway, Speaker, address_options, gateway, model, stdin_text, under

_HELP = "/clear forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer"


@click.command("chat")
@click.argument("message", required=False)
@address_options
@click.option("--system", metavar="TEXT", help="What the model is told before the conversation.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), metavar="N", help="The longest answer; default: the engine's."
)
@click.option(
    "--temperature", type=click.FloatRange(min=0), metavar="T", help="0 takes the likeliest token each time."
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The same seed gives the same answer.")
@context_option
@click.pass_obj
def command(
    session: Session,
    /,
    message: str | None,
    url: str | None,
    key_file: str | None,
    wanted: str | None,
    timeout: float,
    system: str | None,
    **parameters: Any,
) -> None:
    """Talk with a model. With a message, or with text on stdin, one answer; on a terminal without one a conversation.

    In a conversation /clear forgets what was said, /exit or Ctrl-D ends it, and Ctrl-C stops an answer.
    """
    is_conversation = message is None and sys.stdin.isatty() and sys.stdout.isatty()
    if message in (None, "-") and not is_conversation:
        if sys.stdin.isatty():
            raise UsageError("say something: llmctl chat 'Hello'")
        message = stdin_text().strip()
    if not is_conversation and not message:
        raise UsageError("the message is empty")
    found = gateway(session, url, key_file, timeout)
    talk = _Conversation(found, model(found, wanted), system, parameters)
    if not is_conversation:
        assert message is not None
        talk.ask(message)
        return
    out(f"{talk.model} ({_HELP})")
    _converse(talk)


class _Conversation:
    def __init__(self, found: Gateway, name: str, system: str | None, parameters: dict[str, Any]) -> None:
        self.model = name
        self._gateway = found
        self._parameters = {key: value for key, value in parameters.items() if value is not None}
        self._begin = [{"role": "system", "content": system}] if system else []
        self._said: list[dict[str, str]] = []

    def ask(self, message: str) -> None:
        """Prints the answer and remembers both. Raises GatewayError, and then remembers neither."""
        question = {"role": "user", "content": message}
        body = {
            "model": self.model,
            "messages": [*self._begin, *self._said, question],
            "stream": True,
            **self._parameters,
        }
        speaker = Speaker()
        parts: list[str] = []
        try:
            for event in self._gateway.events(under(self.model, "/v1/chat/completions"), body):
                for choice in event.get("choices") or ():
                    text = str((choice.get("delta") or {}).get("content") or "")
                    parts.append(text)
                    speaker.say(text)
        finally:
            speaker.end()
        self._said += [question, {"role": "assistant", "content": "".join(parts)}]

    def clear(self) -> None:
        self._said.clear()


def _converse(talk: _Conversation) -> None:
    import readline  # noqa: F401  (input() edits lines with it)

    while True:
        try:
            message = input("> ").strip()
        except EOFError:
            out("")
            return
        if message == "/exit":
            return
        if message == "/clear":
            talk.clear()
        elif message.startswith("/"):
            say(_HELP)
        elif message:
            try:
                talk.ask(message)
            except KeyboardInterrupt:
                say("(stopped; it is not remembered)")
            except CliError as error:
                if error.code is ExitCode.UNAUTHENTICATED:
                    raise
                say(str(error))
