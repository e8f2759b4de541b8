"""llmctl explain."""

import click

from llmop.cli.errors import CliError, ExitCode
from llmop.cli.session import Session, connection_options, out


@click.command("explain")
@click.argument("path", metavar="TYPE[.FIELD...]")
@connection_options
@click.pass_obj
def command(session: Session, path: str) -> None:
    """Describe the fields of a kind: llmctl explain md.spec.rolloutStrategy."""
    from llmop.cli import targets
    from llmop.domain import errors
    from llmop.manifest import explain

    targets.kind(path.partition(".")[0])
    try:
        text = explain.explain(path)
    except errors.Invalid as error:
        details = "; ".join(violation.message for violation in error.violations)
        raise CliError(f'error: field "{path}" does not exist: {details}', ExitCode.NOT_FOUND) from error
    out(text.rstrip("\n"))
