"""llmctl apply."""

from typing import TYPE_CHECKING, Any

import click

from llmop.cli.errors import CliError, ExitCode
from llmop.cli.session import Duration, Session, common_options, out, say

if TYPE_CHECKING:
    from llmop.manifest.load import Document

_VERDICTS = ("", "created", "configured", "unchanged")


@click.command("apply")
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
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    help="Store nothing. server: check everything; client: check the manifests alone, and ask nobody.",
)
@click.option(
    "--force-conflicts", "--force", "force", is_flag=True, help="Take over fields that another manager owns."
)
@click.option(
    "--field-manager", default="llmctl", metavar="NAME", help="Who owns the fields, llmctl by default."
)
@click.option(
    "--wait",
    is_flag=False,
    flag_value="ready",
    type=click.Choice(["ready"]),
    help="Wait until everything is ready; ends at once when something stalls.",
)
@click.option(
    "--timeout", type=Duration(), default="30m", metavar="DURATION", help="For --wait, 30m by default."
)
@common_options
@click.pass_obj
def command(
    session: Session,
    names: tuple[str, ...],
    recursive: bool,
    dry_run: str,
    force: bool,
    field_manager: str,
    wait: str | None,
    timeout: float,
) -> None:
    """Create or change objects from manifests.

    What `get -o yaml` prints can be applied, a List too: what the controller sets is ignored.

    All documents are checked before the first one is stored. With --wait the exit code is 217 when a deployment stalls and 208
    when the time is over.
    """
    from llmop.cli import applying, files, targets, waiting

    documents = files.read(names, recursive=recursive, namespace=session.namespace)
    if dry_run == "client":
        _check_alone(session, documents)
        return
    options: dict[str, Any] = {"force": force, "manager": field_manager}
    if dry_run == "server" or len(documents) > 1:
        answers = _check(session, documents, options)
        if dry_run == "server":
            for document, answer in zip(documents, answers, strict=True):
                kind, _, name = files.key(document, session.namespace)
                verdict = _VERDICTS[answer.verdict] if answer else "created"
                if answer:
                    applying.warn(answer)
                out(f"{targets.label(kind, name)} {verdict} (server dry run)")
            return
    goals = []
    for document, answer in zip(documents, _store(session, documents, options), strict=True):
        del document
        goals.append(waiting.ready(answer.object))
    if wait:
        waiting.wait(session, goals, timeout)


def _check_alone(session: Session, documents: "list[Document]") -> None:
    """What can be said without a controller: whether the manifests are well formed. Raises all that is wrong at once."""
    from llmop.cli import applying, files, targets
    from llmop.domain.errors import Invalid
    from llmop.manifest import admit, exported

    texts = []
    for document in documents:
        try:
            kept, warnings = exported.strip(document.data)
            admit.admit(kept, namespace=session.effective_namespace)
        except Invalid as error:
            texts.append(applying.locate(error.kind, error.name, error.violations, document))
        for warning in warnings:
            say(f"Warning: {warning}")
    if texts:
        raise CliError("\n".join(texts), ExitCode.BAD_REQUEST)
    for document in documents:
        kind, _, name = files.key(document, session.namespace)
        out(f"{targets.label(kind, name)} is well formed (dry run)")


def _check(session: Session, documents: "list[Document]", options: dict[str, Any]) -> list[Any | None]:
    """The answers to a dry run of every document; None for one that only waits for the others. Raises all that is wrong at once."""
    from llmop.cli import applying
    from llmop.cli.client import ServerError

    answers: list[Any | None] = []
    problems: list[ServerError] = []
    texts = []
    for document in documents:
        try:
            answers.append(applying.send(session, document, dry_run=True, **options))
        except ServerError as error:
            if error.code is ExitCode.NETWORK:
                raise
            answers.append(None)
            if not applying.waits_for_batch(error, documents):
                problems.append(error)
                texts.append(applying.explain(error, document))
    if problems:
        raise CliError("\n".join(texts), problems[0].code)
    return answers


def _store(session: Session, documents: "list[Document]", options: dict[str, Any]) -> list[Any]:
    from llmop.cli import applying, targets
    from llmop.cli.client import ServerError

    answers: list[Any] = []
    for document in documents:
        try:
            answer = applying.send(session, document, dry_run=False, **options)
        except ServerError as error:
            text = applying.explain(error, document)
            if answers:
                text += f"\nerror: {len(answers)} of {len(documents)} objects were applied before that"
            raise CliError(text, error.code) from error
        applying.warn(answer)
        out(f"{targets.label_of(answer.object)} {_VERDICTS[answer.verdict]}")
        answers.append(answer)
    return answers
