"""llmctl diff."""

import click

from llmop.cli.errors import CliError, ExitCode
from llmop.cli.session import Session, common_options, out


@click.command("diff")
@click.option(
    "-f",
    "--filename",
    "names",
    multiple=True,
    metavar="FILE",
    help="File, folder or - (stdin); may be repeated.",
)
@click.option("-R", "--recursive", is_flag=True, help="Look into the folders of a folder too.")
@click.option(
    "--force-conflicts",
    "--force",
    "force",
    is_flag=True,
    help="As if fields of other managers were taken over.",
)
@click.option("--field-manager", default="llmctl", metavar="NAME", help="As whom, llmctl by default.")
@common_options
@click.pass_obj
def command(
    session: Session, names: tuple[str, ...], recursive: bool, force: bool, field_manager: str
) -> None:
    """Show what apply would change, as a unified diff of YAML. Nothing is stored.

    The exit code is 0 when nothing would change, 1 when something would, and more than 1 for errors.
    """
    from llmop.cli import applying, files, printing
    from llmop.cli.client import ServerError

    documents = files.read(names, recursive=recursive, namespace=session.namespace)
    lines: list[str] = []
    problems: list[tuple[str, ExitCode]] = []
    for document in documents:
        try:
            answer = applying.send(session, document, force=force, dry_run=True, manager=field_manager)
        except ServerError as error:
            if applying.waits_for_batch(error, documents):
                kind, _, name = files.key(document, session.namespace)
                lines += _lines(kind, name, "", _text(printing.in_order(document.data)))
            else:
                problems.append((applying.explain(error, document), error.code))
            continue
        applying.warn(answer)
        lines += _difference(answer)
    if lines:
        out("\n".join(lines))
    if problems:
        raise CliError("\n".join(text for text, _ in problems), problems[0][1])
    if lines:
        raise SystemExit(ExitCode.DIFFERENT)


def _difference(answer: object) -> list[str]:
    from llmop.cli import printing

    item = answer.object  # type: ignore[attr-defined]
    live = answer.live if answer.HasField("live") else None  # type: ignore[attr-defined]
    before = _text(printing.manifest(live)) if live is not None else ""
    return _lines(item.kind, item.metadata.name, before, _text(printing.manifest(item)))


def _text(value: object) -> str:
    from llmop.cli import printing

    return printing.to_yaml(value)


def _lines(kind: str, name: str, before: str, after: str) -> list[str]:
    import difflib

    from llmop.cli import targets

    label = targets.label(kind, name)
    found = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"live/{label}", f"applied/{label}", lineterm=""
    )
    return list(found)
