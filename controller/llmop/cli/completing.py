"""What a shell offers on Tab. A controller that does not answer at once offers nothing; errors are never shown."""

import click

from llmop.cli.session import Session
from llmop.domain import resources

PATIENCE_S = 1.0


def objects(context: click.Context, incomplete: str) -> list[str]:
    """For TYPE NAME and TYPE/NAME: types first, then the names of the type that stands already."""
    if "/" in incomplete:
        word = incomplete.partition("/")[0]
        return [f"{word}/{name}" for name in _names(context, word) if f"{word}/{name}".startswith(incomplete)]
    typed = [each for each in context.params.get("arguments") or () if each]
    if not typed:
        words = (info.plural for info in resources.KINDS.values())
        return [word for word in words if word.startswith(incomplete)]
    if "/" in typed[0]:
        return []
    return [
        name for name in _names(context, typed[0]) if name.startswith(incomplete) and name not in typed[1:]
    ]


def deployments(context: click.Context, incomplete: str) -> list[str]:
    """md/NAME of every deployment, or the names alone where the type stands already."""
    if context.params.get("arguments"):
        return objects(context, incomplete)
    names = [f"md/{name}" for name in _names(context, "md")]
    return [name for name in ("md", *names) if name.startswith(incomplete)]


def contexts(incomplete: str) -> list[str]:
    """The contexts that there are."""
    import os

    from llmop.cli import contexts as known
    from llmop.cli.errors import CliError

    try:
        found = known.load(known.default_path(os.environ)).contexts
    except CliError:
        return []
    return [each.name for each in found if each.name.startswith(incomplete)]


def _names(context: click.Context, word: str) -> list[str]:
    from llmop.cli.errors import CliError

    kind = resources.find_kind(word)
    session = context.find_object(Session)
    if kind is None or session is None:
        return []
    session.request_timeout = min(session.request_timeout, PATIENCE_S)
    try:
        rows = session.client.list(kind.name, session.effective_namespace if kind.namespaced else "")[0]
    except CliError:
        return []
    return [row.object.metadata.name for row in rows]
