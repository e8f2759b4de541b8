"""llmctl why."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import Session, common_options, complete_objects, out

if TYPE_CHECKING:
    from llmop.cli.causes import Explanation, Happening, Situation


@click.command("why")
@click.argument(
    "arguments", nargs=-1, metavar="md/NAME | rep/NAME | tb/NAME | as/NAME", shell_complete=complete_objects
)
@common_options
@click.pass_obj
def command(session: Session, arguments: tuple[str, ...]) -> None:
    """Say why a deployment, a replica, a tribunal or an assistant is as it is: what is wrong, what caused it, and what to do about it."""
    from llmop.cli import causes, printing, targets
    from llmop.domain import resources

    if len(arguments) == 1 and "/" not in arguments[0]:
        raise UsageError("name one object: why md/NAME, why rep/NAME, why tb/NAME or why as/NAME")
    target = targets.one(arguments)
    if target.kind.name == resources.MODEL_DEPLOYMENT:
        explanation = causes.explain(_of_deployment(session, target.name))
    elif target.kind.name == resources.REPLICA:
        explanation = causes.explain(_of_replica(session, target.name))
    elif target.kind.name in (resources.TRIBUNAL, resources.ASSISTANT):
        explanation = _of_virtual(session, target.kind.name, target.name)
    elif (refused := _of_refused(session, target.kind, target.name)) is not None:
        explanation = refused
    else:
        raise UsageError(
            f"why is for deployments, replicas, tribunals and assistants; llmctl describe {target.kind.short_names[0]} {target.name}"
        )
    text = causes.lines(explanation, session.clock.now())
    out("\n".join(printing.multi_line(line) for line in text))


def _of_refused(session: Session, kind: Any, name: str) -> "Explanation | None":
    """Of the other kinds there is nothing to explain but that the controller refuses what is stored."""
    from llmop.cli import advice, printing, virtual_causes

    namespace = session.effective_namespace if kind.namespaced else ""
    found = printing.document(session.client.get(kind.name, namespace, name).object)
    for each in (found.get("status") or {}).get("conditions") or ():
        if each.get("type") == "SpecAccepted":
            return virtual_causes.refused(found, each, advice.OF_REFUSAL)
    return None


def _of_virtual(session: Session, kind: str, name: str) -> "Explanation":
    from llmop.cli import printing, virtual_causes
    from llmop.domain import resources

    found = session.client.get(kind, session.effective_namespace, name).object
    deployments = [
        printing.document(row.object) for row in session.client.list(resources.MODEL_DEPLOYMENT, "")[0]
    ]
    return virtual_causes.explain(printing.document(found), deployments)


def _of_deployment(session: Session, name: str) -> "Situation":
    from llmop.cli import causes, happenings, printing
    from llmop.domain import resources

    namespace = session.effective_namespace
    deployment = session.client.get(resources.MODEL_DEPLOYMENT, namespace, name).object
    rows = session.client.list(resources.REPLICA, namespace)[0]
    events = session.client.list(resources.EVENT, namespace)[0]
    about = happenings.about(events, deployment.kind, name, deployment.metadata.uid)
    about += happenings.about_replicas(events, deployment, [row.object for row in rows])
    replicas = tuple(
        printing.document(row.object)
        for row in rows
        if json.loads(row.object.spec_json).get("deployment") == name
    )
    return causes.Situation(
        now=session.clock.now(),
        deployment=printing.document(deployment),
        replicas=replicas,
        cluster=_cluster(session, _cluster_of(session, deployment, replicas)),
        events=_happenings(about),
    )


def _of_replica(session: Session, name: str) -> "Situation":
    """Of one that is gone, what its events tell. Raises NotFound when there is nothing."""
    from llmop.cli import causes, happenings, printing
    from llmop.cli.client import ServerError
    from llmop.domain import resources

    namespace = session.effective_namespace
    events = session.client.list(resources.EVENT, namespace)[0]
    about = happenings.about(events, resources.REPLICA, name)
    try:
        item = session.client.get(resources.REPLICA, namespace, name).object
    except ServerError as error:
        if error.code is not ExitCode.NOT_FOUND or not about:
            raise
        return causes.Situation(now=session.clock.now(), events=_happenings(about), focus=name)
    replica = printing.document(item)
    return causes.Situation(
        now=session.clock.now(),
        replicas=(replica,),
        cluster=_cluster(session, str(replica["spec"].get("cluster", ""))),
        events=_happenings(about),
        focus=name,
    )


def _cluster_of(session: Session, deployment: Any, replicas: Sequence[Any]) -> str:
    """The cluster of a deployment: its own, that of its profile, or where its replicas are."""
    from llmop.domain import resources

    spec = json.loads(deployment.spec_json)
    if spec.get("cluster"):
        return str(spec["cluster"])
    profile = str(spec.get("resourceProfile") or "").partition(":")[0]
    if profile:
        try:
            found = session.client.get(resources.RESOURCE_PROFILE, "", profile).object
            return str(json.loads(found.spec_json).get("cluster", ""))
        except CliError as error:
            if error.code is not ExitCode.NOT_FOUND:
                raise
    return str(replicas[0]["spec"].get("cluster", "")) if replicas else ""


def _cluster(session: Session, name: str) -> Any:
    from llmop.cli import printing
    from llmop.domain import resources

    if not name:
        return None
    try:
        return printing.document(session.client.get(resources.CLUSTER, "", name).object)
    except CliError as error:
        if error.code is not ExitCode.NOT_FOUND:
            raise
        return None


def _happenings(rows: Sequence[Any]) -> "tuple[Happening, ...]":
    from llmop.cli import causes, happenings

    found = []
    for row in rows:
        spec = json.loads(row.object.spec_json)
        regarding = spec.get("regarding") or {}
        found.append(
            causes.Happening(
                at=happenings.last_seen(row)[0],
                count=int(spec.get("count") or 1),
                about=f"{str(regarding.get('kind', '')).lower()}/{regarding.get('name', '')}",
                is_warning=spec.get("type") == "Warning",
                reason=str(spec.get("reason", "")),
                message=str(spec.get("message", "")),
            )
        )
    return tuple(found)
