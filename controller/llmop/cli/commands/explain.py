"""llmctl explain."""

import click

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import Session, connection_options, out


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Types, then the fields below what stands already."""
    from llmop.domain import resources
    from llmop.manifest import explain

    word, dot, rest = incomplete.partition(".")
    if not dot:
        return [
            info.short_names[0] for info in resources.KINDS.values() if info.short_names[0].startswith(word)
        ]
    above, _, last = rest.rpartition(".")
    names = explain.names(word, above)
    return [f"{'.'.join(filter(None, (word, above)))}.{name}" for name in names if name.startswith(last)]


@click.command("explain")
@click.argument("path", metavar="TYPE[.FIELD...]", required=False, shell_complete=_complete)
@click.option("--recursive", is_flag=True, help="All fields below, without their descriptions.")
@click.option(
    "--schema", is_flag=True, help="The JSON Schema instead, for an editor; without a type that of all types."
)
@connection_options
@click.pass_obj
def command(session: Session, path: str | None, recursive: bool, schema: bool) -> None:
    """Describe the fields of a kind: llmctl explain md.spec.rolloutStrategy.

    An editor with the YAML language server checks manifests with the file that `llmctl explain --schema` prints, named in their first
    line:

    \b
      # yaml-language-server: $schema=llmop.schema.json
    """
    from llmop.cli import printing, targets
    from llmop.domain import errors
    from llmop.manifest import explain

    if path is None:
        if not schema:
            raise UsageError("name what to explain, like md or md.spec.model; types are " + targets.known())
        out(printing.to_json(explain.json_schema_of_all()))
        return
    kind = targets.kind(path.partition(".")[0])
    if schema:
        if "." in path or recursive:
            raise UsageError("--schema is for a type: llmctl explain md --schema")
        if kind.read_only:
            raise UsageError(
                f"{kind.plural} are made by the controller; nobody writes them, and there is no schema"
            )
        out(printing.to_json(explain.json_schema(kind.name)))
        return
    try:
        text = explain.explain(path, recursive=recursive)
    except errors.Invalid as error:
        details = "; ".join(violation.message for violation in error.violations)
        raise CliError(f'error: field "{path}" does not exist: {details}', ExitCode.NOT_FOUND) from error
    out(text.rstrip("\n"))
