"""What every command shares: where the controller is, the namespace, the clock, and the options that say so."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmop.cli.errors import ConfigError

if TYPE_CHECKING:
    from llmop.cli.client import Client
    from llmop.cli.contexts import Context
    from llmop.clock import Clock

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Session:
    """One run of llmctl. The connection is made when a command first needs it."""

    def __init__(self, clock: "Clock") -> None:
        self.clock = clock
        self.context: str | None = None
        self.controller: str | None = None
        self.namespace: str | None = None
        self.request_timeout: float = 30.0
        self._client: Client | None = None
        self._found_context: Context | None = None

    @property
    def effective_namespace(self) -> str:
        """Flag -n, then the context's, then `default`."""
        if self.namespace:
            return self.namespace
        found = None if self.controller else self.find_context()
        return (found.namespace if found is not None else "") or "default"

    @property
    def client(self) -> "Client":
        if self._client is None:
            from llmop.cli.client import Client

            self._client = Client(self.address(), self.request_timeout)
        return self._client

    def address(self) -> str:
        """Flag --controller, then that of the context."""
        if self.controller:
            return self.controller
        found = self.find_context()
        if found is None:
            raise ConfigError(
                'no controller is known: start one with "llmop up", or name yours, by "llmctl config set-context" or --controller'
            )
        return found.controller

    def find_context(self) -> "Context | None":
        """The one named by flag --context, by LLMOP_CONTEXT, or by the context file itself; None when nothing names one.

        Raises ConfigError for a name that is not in the file.
        """
        from llmop.cli import contexts

        if self._found_context is None:
            path = contexts.default_path(os.environ)
            known = contexts.load(path)
            wanted = self.context or os.environ.get("LLMOP_CONTEXT") or known.current
            if not wanted:
                return None
            self._found_context = known.find(wanted)
            if self._found_context is None:
                names = ", ".join(context.name for context in known.contexts) or "none"
                raise ConfigError(f'context "{wanted}" does not exist in {path}; it has: {names}')
        return self._found_context

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def say(text: str) -> None:
    """A message for people, to stderr; control characters in what others wrote stay away from the terminal."""
    from llmop.cli import printing

    print(printing.multi_line(text), file=sys.stderr, flush=True)


def out(text: str, *, end: str = "\n") -> None:
    """Data, to stdout."""
    print(text, end=end, flush=True)


class Duration(click.ParamType[float]):
    """`90s`, `5m`, `1h30m`, or a bare number of seconds; negative ones are allowed."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float | int):
            return float(value)
        seconds = parse_duration(value)
        if seconds is None:
            self.fail(f'"{value}" is not a duration; write 90s, 5m or 1h30m', param, ctx)
        return seconds


def parse_duration(text: str) -> float | None:
    """Seconds, or None for what is not a duration."""
    import re

    sign = -1 if text.startswith("-") else 1
    text = text.removeprefix("-")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return sign * float(text)
    found = re.fullmatch(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?", text)
    if found is None or not text:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return sign * (days * 86_400 + hours * 3600 + minutes * 60 + seconds)


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name is not None:
        setattr(ctx.find_object(Session), parameter.name, value)


_CONNECTION = (
    click.option(
        "--context",
        metavar="NAME",
        expose_value=False,
        callback=_remember,
        help="Context of ~/.config/llmop/contexts.yaml to use; default LLMOP_CONTEXT, then the current one.",
    ),
    click.option(
        "--controller",
        metavar="ADDRESS",
        expose_value=False,
        callback=_remember,
        help="Address of the control API, unix:///path; instead of a context.",
    ),
    click.option(
        "--request-timeout",
        type=Duration(),
        metavar="DURATION",
        expose_value=False,
        callback=_remember,
        help="How long one call may take, 30s by default.",
    ),
)
_NAMESPACE = click.option(
    "-n",
    "--namespace",
    metavar="NAME",
    expose_value=False,
    callback=_remember,
    help='Namespace; the context\'s, or "default", where nothing names another one.',
)


_SELECTORS = (
    click.option(
        "-l",
        "--selector",
        default="",
        metavar="SELECTOR",
        help="Only objects with these labels: team=nlp,tier!=test,stage in (a,b),owner,!old.",
    ),
    click.option(
        "--field-selector",
        default="",
        metavar="SELECTOR",
        help="Only objects with these fields: status.phase=Pending,metadata.name!=chat.",
    ),
)


def selector_options(command: _Command) -> _Command:
    """-l and --field-selector."""
    for option in reversed(_SELECTORS):
        command = option(command)
    return command


def complete_objects(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """What a shell offers for TYPE NAME and TYPE/NAME: types, and the objects that there are."""
    from llmop.cli import completing

    return completing.objects(context, incomplete)


def complete_deployments(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """What a shell offers where only deployments can stand."""
    from llmop.cli import completing

    return completing.deployments(context, incomplete)


def dry_run_option(command: _Command) -> _Command:
    """--dry-run=server for commands that a client alone can say nothing about."""
    return click.option(
        "--dry-run",
        type=click.Choice(["none", "server"]),
        default="none",
        help="server: check everything and store nothing.",
    )(command)


def context_option(command: _Command) -> _Command:
    """--context alone, for what talks to a gateway."""
    return _CONNECTION[0](command)


def connection_options(command: _Command) -> _Command:
    """--context, --controller and --request-timeout, accepted by llmctl and by every command alike."""
    for option in reversed(_CONNECTION):
        command = option(command)
    return command


def common_options(command: _Command) -> _Command:
    """The connection's options and -n."""
    return _NAMESPACE(connection_options(command))
