"""One structured line per write."""

import structlog

from llmop.domain import resources

_log = structlog.get_logger("llmop.audit")


def record(
    verb: str, resource: resources.Resource, *, manager: str, result: str, paths: tuple[str, ...] = ()
) -> None:
    """`manager` is who wrote, `paths` what changed; values are never logged."""
    _log.info(
        "write",
        verb=verb,
        kind=resource.kind,
        namespace=resource.namespace,
        name=resource.name,
        uid=resource.uid,
        manager=manager,
        result=result,
        paths=list(paths),
    )
