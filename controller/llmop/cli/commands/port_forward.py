"""llmctl port-forward."""

import json
from typing import Any

import click

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import Session, common_options, complete_objects, out, say


@click.command("port-forward")
@click.argument(
    "arguments", nargs=-1, metavar="rep/NAME | md/NAME [LOCAL_PORT]", shell_complete=complete_objects
)
@common_options
@click.pass_obj
def command(session: Session, arguments: tuple[str, ...]) -> None:
    """Listen on a port of 127.0.0.1 and pass connections on to the engine of one replica, until Ctrl-C.

    The connection goes from this machine straight to the node: it works where the nodes can be reached, such as on the controller's
    machine. The engine asks for its own key, which only gateways have; what it answers without one is what can be seen this way. Port
    0, the default, takes a free one.
    """
    from llmop.cli import forwarding

    name, local = _wanted(session, arguments)
    host, port = _endpoint(session, name)
    forwarding.check(name, host, port)
    with forwarding.listen(local) as listener:
        out(f"Forwarding from 127.0.0.1:{listener.getsockname()[1]} -> {host}:{port} ({name})")
        forwarding.serve(listener, host, port, say)


def _wanted(session: Session, arguments: tuple[str, ...]) -> tuple[str, int]:
    """The replica, and the local port."""
    from llmop.cli import targets
    from llmop.domain import resources

    words = list(arguments)
    local = 0
    if len(words) > 1 and words[-1].isdecimal():
        local = int(words.pop())
        if local > 65535:
            raise UsageError(f"{local} is no port; they end at 65535")
    elif len(words) > 1 and ":" in words[-1]:
        raise UsageError(
            f'"{words[-1]}": a replica has one port, which llmctl knows; give the local one alone'
        )
    if len(words) == 1 and "/" not in words[0]:
        return words[0], local
    target = targets.one(words)
    if target.kind.name == resources.REPLICA:
        return target.name, local
    if target.kind.name != resources.MODEL_DEPLOYMENT:
        raise UsageError(f"{target.kind.plural} have no port; replicas and deployments do")
    namespace = session.effective_namespace
    session.client.get(resources.MODEL_DEPLOYMENT, namespace, target.name)
    fields = f"spec.deployment={target.name},status.ready=true"
    rows = session.client.list(resources.REPLICA, namespace, field_selector=fields)[0]
    if not rows:
        raise CliError(
            f'error: deployment "{target.name}" has no ready replica; llmctl why md/{target.name} says why',
            ExitCode.UNAVAILABLE,
        )
    return rows[0].object.metadata.name, local


def _endpoint(session: Session, name: str) -> tuple[str, int]:
    from llmop.domain import resources

    item: Any = session.client.get(resources.REPLICA, session.effective_namespace, name).object
    status = json.loads(item.status_json)
    endpoint = status.get("endpoint") or {}
    if status.get("end") or not endpoint.get("host") or not endpoint.get("port"):
        raise CliError(
            f'error: replica "{name}" does not listen: it is {status.get("phase") or "Unknown"}; llmctl why rep/{name} says why',
            ExitCode.UNAVAILABLE,
        )
    return str(endpoint["host"]), int(endpoint["port"])
