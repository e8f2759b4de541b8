"""llmctl rollout."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import (
    Duration,
    Session,
    common_options,
    complete_deployments,
    dry_run_option,
    out,
    say,
)


@click.group("rollout")
def command() -> None:
    """Watch, pause, restart or undo the rollout of a deployment.

    What pause, restart and undo write belongs to the manager "rollout": a later apply that names another value is a conflict.
    """


_ARGUMENT = click.argument(
    "arguments", nargs=-1, metavar="md NAME... | md/NAME...", shell_complete=complete_deployments
)


@command.command("status", short_help="Say how far a rollout is, until it is complete.")
@_ARGUMENT
@click.option(
    "--watch/--no-watch", "-w", default=True, help="Go on until it is complete, or cannot become so."
)
@click.option(
    "--revision", type=click.IntRange(min=1), metavar="N", help="Error when another one is the newest."
)
@click.option(
    "--timeout", type=Duration(), default="-1s", metavar="DURATION", help="By default as long as it takes."
)
@common_options
@click.pass_obj
def status(
    session: Session, arguments: tuple[str, ...], watch: bool, revision: int | None, timeout: float
) -> None:
    """Say how far the newest version of a deployment is rolled out, until it is.

    The exit code is 217 when it stalls, exceeds its progress deadline or is paused, and 208 when the time is over.
    """
    from llmop.api.v1 import rollout_pb2

    deadline = time.monotonic() + timeout if timeout >= 0 else None
    for name in _names(arguments, several=True):
        request = rollout_pb2.StatusRequest(
            namespace=session.effective_namespace, name=name, revision=revision or 0
        )
        answer = session.client.call(session.client.rollout.Status, request)
        if watch:
            _watch(session, name, deadline, answer.message)
        else:
            out(answer.message)


def _watch(session: Session, name: str, deadline: float | None, now: str) -> None:
    """Prints every new sentence; `now` is how things are. Raises CliError."""
    from llmop.cli import conditions
    from llmop.cli.watching import Feed, Interest
    from llmop.domain import resources, rollouts

    interest = Interest(kind=resources.MODEL_DEPLOYMENT, namespace=session.effective_namespace, name=name)
    feed = Feed(session.client, [interest])
    said = ""
    while True:
        found = feed.next(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if found is None:
            raise CliError(f"error: timed out: {said or now}", ExitCode.TIMEOUT)
        change = found[1]
        if change.type == "SYNCED":
            continue
        if change.type == "DELETED":
            raise CliError(f'error: deployment "{name}" was deleted', ExitCode.UNEXPECTED)
        state = conditions.state(change.row.object)
        progress = rollouts.progress(
            name, state.generation, state.spec, state.status, is_deleting=state.deleting
        )
        if progress.state is rollouts.State.STUCK:
            lines = [f"error: {progress.message}", *state.failure()]
            raise CliError("\n".join(lines), ExitCode.UNEXPECTED)
        if progress.message != said:
            out(progress.message)
        said = progress.message
        if progress.state is rollouts.State.COMPLETE:
            return


@command.command("history", short_help="List the revisions that are kept.")
@_ARGUMENT
@click.option("--revision", type=click.IntRange(min=1), metavar="N", help="Show the template of this one.")
@common_options
@click.pass_obj
def history(session: Session, arguments: tuple[str, ...], revision: int | None) -> None:
    """List the revisions that are kept, and what changed with each."""
    from llmop.api.v1 import rollout_pb2
    from llmop.cli import printing, targets
    from llmop.domain import resources, times

    texts = []
    for name in _names(arguments, several=True):
        request = rollout_pb2.HistoryRequest(namespace=session.effective_namespace, name=name)
        found = session.client.call(session.client.rollout.History, request).revisions
        label = targets.label(resources.MODEL_DEPLOYMENT, name)
        if revision is not None:
            texts.append(_template(label, found, revision))
            continue
        rows = [["REVISION", "CHANGE-CAUSE", "AGE"]]
        for each in found:
            age = times.human(session.clock.now() - each.creation_time.seconds)
            rows.append([str(each.number), each.change_cause, age])
        texts.append("\n".join([label, *printing.table(rows)]))
    out("\n\n".join(texts))


def _template(label: str, found: Sequence[Any], revision: int) -> str:
    from llmop.cli import printing

    for each in found:
        if each.number == revision:
            template = printing.to_yaml(printing.in_order(json.loads(each.template_json)))
            lines = [f"  {line}" for line in template.splitlines()]
            return "\n".join([f"{label} with revision #{revision}", "Template:", *lines])
    known = ", ".join(str(each.number) for each in found) or "none"
    raise CliError(
        f"error: unable to find revision {revision} of {label}; there are {known}", ExitCode.NOT_FOUND
    )


@command.command("undo", short_help="Go back to an older revision.")
@_ARGUMENT
@click.option(
    "--to-revision",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="0, the default: the newest one that differs from what is there.",
)
@dry_run_option
@common_options
@click.pass_obj
def undo(session: Session, arguments: tuple[str, ...], to_revision: int, dry_run: str) -> None:
    """Give a deployment the template of an older revision; that becomes a new revision."""
    from llmop.api.v1 import rollout_pb2
    from llmop.cli import targets

    (name,) = _names(arguments, several=False)
    answer = session.client.call(
        session.client.rollout.Undo,
        rollout_pb2.UndoRequest(
            namespace=session.effective_namespace,
            name=name,
            to_revision=to_revision,
            dry_run=dry_run == "server",
        ),
    )
    label = targets.label_of(answer.object)
    if not answer.changed_paths:
        out(f"{label} skipped rollback (current template already matches revision {answer.revision})")
        return
    out(f"{label} rolled back to revision {answer.revision}{_suffix(dry_run)}")
    say(
        f"changed {', '.join(answer.changed_paths)}; apply a manifest that agrees, or the next apply is a conflict"
    )


@command.command("restart", short_help="Replace every replica.")
@_ARGUMENT
@dry_run_option
@common_options
@click.pass_obj
def restart(session: Session, arguments: tuple[str, ...], dry_run: str) -> None:
    """Replace every replica by a new one, as an update does."""
    from llmop.api.v1 import rollout_pb2

    _each(
        session, arguments, dry_run, session.client.rollout.Restart, rollout_pb2.RestartRequest, "restarted"
    )


@command.command("pause", short_help="Let a changed template wait.")
@_ARGUMENT
@dry_run_option
@common_options
@click.pass_obj
def pause(session: Session, arguments: tuple[str, ...], dry_run: str) -> None:
    """Let replicas not be replaced, and a changed template wait. Scaling goes on, and what ends is made again."""
    from llmop.api.v1 import rollout_pb2

    _each(session, arguments, dry_run, session.client.rollout.Pause, rollout_pb2.PauseRequest, "paused")


@command.command("resume")
@_ARGUMENT
@dry_run_option
@common_options
@click.pass_obj
def resume(session: Session, arguments: tuple[str, ...], dry_run: str) -> None:
    """End a pause."""
    from llmop.api.v1 import rollout_pb2

    _each(session, arguments, dry_run, session.client.rollout.Resume, rollout_pb2.ResumeRequest, "resumed")


def _each(
    session: Session,
    arguments: Sequence[str],
    dry_run: str,
    method: Any,
    request: Callable[..., Any],
    done: str,
) -> None:
    from llmop.cli import targets

    problems: list[CliError] = []
    for name in _names(arguments, several=True):
        try:
            answer = session.client.call(
                method,
                request(namespace=session.effective_namespace, name=name, dry_run=dry_run == "server"),
            )
        except CliError as error:
            if error.code is ExitCode.NETWORK:
                raise
            problems.append(error)
            continue
        out(f"{targets.label_of(answer.object)} {done}{_suffix(dry_run)}")
    if problems:
        raise CliError("\n".join(str(each) for each in problems), problems[0].code)


def _suffix(dry_run: str) -> str:
    return " (server dry run)" if dry_run == "server" else ""


def _names(arguments: Sequence[str], *, several: bool) -> list[str]:
    """Names of deployments. Raises UsageError for other kinds, for no name, and for several where one is meant."""
    from llmop.cli import targets
    from llmop.domain import resources

    found = targets.parse(arguments)
    if any(target.kind.name != resources.MODEL_DEPLOYMENT or not target.name for target in found):
        raise UsageError("rollouts are those of deployments: name them as md NAME or md/NAME")
    if len(found) > 1 and not several:
        raise UsageError("undo takes one deployment at a time")
    return [target.name for target in found]
