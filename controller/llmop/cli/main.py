"""The llmctl program: finds the command, runs it, and turns every way of ending into an exit code."""

import contextlib
import errno
import faulthandler
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from llmop import __version__
from llmop.cli.errors import CliError, ExitCode, LaterVersionError
from llmop.cli.session import Session, common_options, say

if TYPE_CHECKING:
    from llmop.clock import Clock

COMMANDS = {
    "apply": "Create or change objects from manifests",
    "artifacts": "List images and weights on the clusters, or remove what is not used",
    "autoscale": "Let the number of replicas follow the load, and show how it does",
    "batch": "Let a model answer a file of requests",
    "bench": "Measure models and engines under load",
    "chat": "Talk with a model",
    "completion": "Print what makes a shell complete llmctl",
    "config": "Show and choose contexts: controllers and gateways",
    "delete": "Delete objects",
    "describe": "Show an object with its conditions, replicas and events",
    "diff": "Show what apply would change",
    "discover": "Ask Slurm about the site and write manifests for review",
    "doctor": "Look at the health of the installation",
    "events": "List what happened",
    "explain": "Describe the fields of a kind",
    "generate": "Let a model go on with a text",
    "get": "List objects",
    "key": "Make keys for users of the gateway",
    "logs": "Print the log of a replica",
    "port-forward": "Reach the engine of one replica from this machine",
    "preflight": "Check a cluster or a deployment before anything is started",
    "rollout": "Watch, pause, restart or undo the rollout of a deployment",
    "scale": "Set the number of replicas of a deployment",
    "top": "Show the load of the models as a gateway counts it",
    "usage": "Show what keys have used of which models",
    "version": "Print the versions of llmctl and of the controller",
    "wait": "Wait for a condition, a field, a creation or a deletion",
    "why": "Say why a deployment or a replica is as it is",
}

_OUTPUT = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
)  # what a file says that stdout goes to; it has no name here
COMPLETE_VARIABLE = "_LLMCTL_COMPLETE"  # the shell scripts that click makes set it

# Commands that a later version will have: refused by name until then.
LATER_COMMANDS = frozenset(
    {
        "edit",
        "patch",
    }
)


class _Commands(click.Group):
    """Imports a command's module when it is called; the list above is all that --help needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in LATER_COMMANDS:
            raise LaterVersionError(cmd_name)
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"llmop.cli.commands.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in COMMANDS and word not in LATER_COMMANDS and not word.startswith("-"):
            from llmop.manifest import suggest

            near = suggest.closest(word, COMMANDS)
            ctx.fail(f"No such command '{word}'." + (f" Did you mean '{near}'?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmctl")
@common_options
def llmctl() -> None:
    """Controls llmop: declares model deployments and shows how they are.

    Kinds may be written as kind, plural or short name (modeldeployment, modeldeployments, md), objects as TYPE NAME or TYPE/NAME.
    """


def run(arguments: Sequence[str], clock: "Clock") -> int:
    """One command from its arguments to its exit code; never a traceback for what can go wrong outside of llmctl."""
    session = Session(clock)
    try:
        if instruction := os.environ.get(COMPLETE_VARIABLE):
            return _complete(session, instruction)
        with llmctl.make_context("llmctl", list(arguments), obj=session) as context:
            llmctl.invoke(context)
        sys.stdout.flush()
        return ExitCode.OK
    except (click.exceptions.Exit, SystemExit) as end:
        code: Any = getattr(end, "exit_code", getattr(end, "code", 0))
        return int(code or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message())
        return ExitCode.USAGE
    except click.ClickException as error:
        say(f"error: {error.format_message()}")
        if isinstance(error, click.UsageError) and error.ctx is not None:
            say(f"See '{error.ctx.command_path} --help'.")
        return ExitCode.USAGE
    except CliError as error:
        say(str(error))
        return error.code
    except BrokenPipeError:
        # The descriptor is replaced, or the interpreter would complain when it flushes at its end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED
    except OSError as error:
        from llmop.domain import os_errors

        if not error.filename and error.errno not in _OUTPUT:
            return _say_bug(error)
        say(f"error: {os_errors.sentence(error, 'the output')}")
        return ExitCode.CONFIG
    except Exception as error:  # noqa: BLE001  (people get a sentence; LLMCTL_DEBUG gets the traceback too)
        return _say_bug(error)
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            session.close()


def _say_bug(error: Exception) -> ExitCode:
    if os.environ.get("LLMCTL_DEBUG"):
        import traceback

        traceback.print_exc()
    say(f"error: {type(error).__name__}: {error} (this is a bug in llmctl; LLMCTL_DEBUG=1 shows where)")
    return ExitCode.UNKNOWN


def _complete(session: Session, instruction: str) -> int:
    """Answers a shell that asks on Tab; what goes wrong is nobody's concern then."""
    import click.shell_completion

    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(CliError, click.ClickException):
        return click.shell_completion.shell_complete(
            llmctl, {"obj": session}, "llmctl", COMPLETE_VARIABLE, instruction
        )
    return ExitCode.OK


def main() -> None:
    """Leaves without waiting for gRPC's threads, so that Ctrl-C ends llmctl at once.

    However `run` ends, the interpreter is not taken down: threads that are in gRPC then, or a channel that is closed while it
    happens, are known to abort the process (grpc/grpc issue 19780).
    """
    faulthandler.enable()  # an abort within a library says at least where
    from llmop.clock import SystemClock

    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code: int = ExitCode.INTERRUPTED
    try:
        code = run(sys.argv[1:], SystemClock())
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
