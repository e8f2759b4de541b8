"""llmctl explain."""

import click

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import Session, connection_options, out


@click.command("explain")
@click.argument("path", metavar="TYPE[.FIELD...]")
@connection_options
@click.pass_obj
def command(session: Session, path: str) -> None:
    """Describe the fields of a kind: llmctl explain md.spec.rolloutStrategy."""
    from llmop.domain import errors
    from llmop.manifest import explain

    try:
        text = explain.explain(path)
    except errors.NotFound as error:
        raise UsageError(f'the server doesn\'t have a resource type "{error.name}"') from error
    except errors.Invalid as error:
        details = "; ".join(violation.message for violation in error.violations)
        raise CliError(f'error: field "{path}" does not exist: {details}', ExitCode.NOT_FOUND) from error
    out(text.rstrip("\n"))
