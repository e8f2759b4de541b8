"""llmctl key."""

import json
from pathlib import Path
from typing import Any

import click

from llmop.cli.errors import CliError, ConfigError, ExitCode, UsageError
from llmop.cli.session import Session, common_options, out, parse_duration, say


@click.group("key")
@common_options
def command() -> None:
    """Make keys for users of the gateway. `llmctl get apikeys` lists them, `llmctl delete apikey NAME` takes one back."""


@command.command("create")
@click.argument("name")
@click.option("--model", "models", multiple=True, metavar="NAME", help="A model it may use; may be repeated.")
@click.option(
    "--priority",
    type=click.Choice(["System", "Interactive", "Default", "Bulk"]),
    default="Default",
    help="Whose requests go first where requests wait.",
)
@click.option("--requests-per-minute", type=click.IntRange(min=1), metavar="N", help="Requests per minute.")
@click.option(
    "--tokens-per-minute",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens per minute, of prompts and answers together.",
)
@click.option(
    "--parallel-requests", type=click.IntRange(min=1), metavar="N", help="Requests under way at a time."
)
@click.option("--shadow", is_flag=True, help="Count what the limits would refuse, and refuse nothing.")
@click.option(
    "--operations", is_flag=True, help="Let it see the page for operators: all namespaces, no secrets."
)
@click.option("--owner", default="", metavar="TEXT", help="Whose key it is, for people.")
@click.option(
    "--expires",
    default="",
    metavar="WHEN",
    help="When it ends to be valid: after 30d or 12h, or at 2026-12-31T23:00:00Z.  [default: never]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the manifest to a new file and store nothing: the key is valid once the manifest is applied.",
)
@common_options
@click.pass_obj
def create(
    session: Session,
    name: str,
    models: tuple[str, ...],
    priority: str,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    parallel_requests: int | None,
    shadow: bool,
    operations: bool,
    owner: str,
    expires: str,
    output: Path | None,
) -> None:
    """Make a key and print it: this is the only time it can be seen.

    The key is made here; the controller and the manifest get its hash alone, so a manifest may lie in a repository. The key stands
    alone on stdout.
    """
    from llmop.domain import client, resources

    limits = {
        "requestsPerMinute": requests_per_minute,
        "tokensPerMinute": tokens_per_minute,
        "parallelRequests": parallel_requests,
    }
    secret = client.KEY_PREFIX + session.clock.secret()
    spec: dict[str, Any] = {"keyHash": f"sha256:{client.digest(secret.encode()).hex()}"}
    if models:
        spec["models"] = list(dict.fromkeys(models))
    spec["priority"] = priority
    if any(limits.values()):
        spec["limits"] = {field: value for field, value in limits.items() if value is not None}
    if shadow:
        spec["shadow"] = True
    if operations:
        spec["operations"] = True
    if owner:
        spec["owner"] = owner
    if expires:
        spec["expiresAt"] = _moment(expires, session.clock.now())
    manifest = {
        "apiVersion": resources.API_VERSION,
        "kind": resources.API_KEY,
        "metadata": {"name": name, "namespace": session.effective_namespace},
        "spec": spec,
    }
    if output is None:
        _store(session, manifest)
    else:
        _write(manifest, output, session.effective_namespace)
    out(secret)


def _moment(text: str, now: float) -> str:
    from llmop.domain import times

    seconds = parse_duration(text)
    if seconds is not None:
        if seconds <= 0:
            raise UsageError(f'--expires "{text}": give a time to come')
        return times.to_rfc3339(now + seconds)
    try:
        return times.to_rfc3339(times.from_rfc3339(text))
    except ValueError as error:
        raise UsageError(f'--expires "{text}": write 30d, 12h or 2026-12-31T23:00:00Z') from error


def _store(session: Session, manifest: dict[str, Any]) -> None:
    from llmop.api.v1 import resources_pb2
    from llmop.cli import targets

    answer = session.client.call(
        session.client.resources.Apply,
        resources_pb2.ApplyRequest(
            manifest_json=json.dumps(manifest), field_manager="llmctl", create_only=True
        ),
    )
    say(f"{targets.label_of(answer.object)} created; this is the only time that the key can be seen")


def _write(manifest: dict[str, Any], output: Path, namespace: str) -> None:
    from llmop.cli import printing
    from llmop.domain import os_errors
    from llmop.domain.errors import Invalid
    from llmop.manifest import admit

    try:
        admit.admit(manifest, namespace=namespace)
    except Invalid as error:
        raise CliError(str(error), ExitCode.BAD_REQUEST) from error
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(printing.to_yaml(manifest))
    except OSError as error:
        raise ConfigError(os_errors.sentence(error)) from error
    say(f"{output} written: apply it to make the key valid; this is the only time that the key can be seen")
