"""Sending documents to the server, and saying where in a file it found something wrong. Shared by apply and diff."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmop.api.v1 import resources_pb2
from llmop.cli import files, targets
from llmop.cli.client import ServerError
from llmop.cli.session import Session, say
from llmop.domain import resources

if TYPE_CHECKING:
    from llmop.domain.errors import Violation
    from llmop.manifest.load import Document

# What a deployment may refer to, by the field that does.
_REFERENCES = {
    "spec.runtime": resources.SERVING_RUNTIME,
    "spec.resourceProfile": resources.RESOURCE_PROFILE,
    "spec.cluster": resources.CLUSTER,
}


def send(session: Session, document: "Document", *, force: bool, dry_run: bool, manager: str) -> Any:
    """The ApplyResponse. Raises ServerError."""
    return session.client.call(
        session.client.resources.Apply,
        resources_pb2.ApplyRequest(
            manifest_json=json.dumps(document.data),
            namespace=session.effective_namespace,
            field_manager=manager,
            force=force,
            dry_run=dry_run,
        ),
    )


def warn(answer: Any) -> None:
    """What the server remarks about a document, to stderr."""
    for warning in answer.warnings:
        say(f"Warning: {targets.label_of(answer.object)}: {warning}")


def explain(error: ServerError, document: "Document") -> str:
    """The error as it is shown: each violation with file, line and column."""
    if error.violations:
        return locate(error.kind, error.name, error.violations, document)
    if error.fields:
        line, column = document.position(error.fields[0])
        return f"{error}\n  at {document.source}:{line}:{column}"
    return str(error)


def locate(kind: str, name: str, violations: "Sequence[Violation]", document: "Document") -> str:
    """Every violation with its place, in the order of the file."""
    lines = [f'The {kind} "{name}" is invalid:']
    problems = [document.locate(violation) for violation in violations]
    lines += [f"* {each}" for each in sorted(problems, key=lambda each: (each.line, each.column))]
    return "\n".join(lines)


def waits_for_batch(error: ServerError, documents: "list[Document]") -> bool:
    """Whether all that `document` lacks are objects that come with the same command, before it."""
    if not error.violations:
        return False
    coming = {(key[0], key[2]) for key in (files.key(each, None) for each in documents)}
    return all(
        violation.reason == "NOT_FOUND"
        and any(
            kind == _REFERENCES.get(violation.path, kind)
            and f'there is no {kind} "{name}"' in violation.message
            for kind, name in coming
        )
        for violation in error.violations
    )
