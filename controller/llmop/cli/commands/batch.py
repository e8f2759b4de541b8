"""llmctl batch."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click

from llmop.cli import batch_progress
from llmop.cli.errors import CliError, ConfigError, ExitCode, UsageError
from llmop.cli.session import Duration, Session, context_option, out, say
from llmop.cli.talking import Gateway, GatewayError, gateway, gateway_options

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_PERIOD_S = 1.0
_AWAY_S = 120.0  # a gateway that starts again is waited for so long
_AWAY = (ExitCode.NETWORK, ExitCode.UNAVAILABLE)

_output = click.option(
    "-o", "--output", type=click.Choice(["json", "yaml"]), help="The whole object instead of a table."
)


def _options(command: Any) -> Any:
    return gateway_options(context_option(click.pass_obj(command)))


@click.group("batch")
def command() -> None:
    """Let a model answer a file of requests: one JSON object a line, in the form of OpenAI's batches.

    Batches go on without llmctl, and whatever is restarted; interactive requests go first.
    """


@command.command("create")
@click.argument("file")
@click.option(
    "--endpoint",
    type=click.Choice(ENDPOINTS),
    default=ENDPOINTS[0],
    help=f"What every line asks for; {ENDPOINTS[0]} by default.",
)
@click.option(
    "--window",
    default="24h",
    metavar="TIME",
    help="What is not answered by then expires; 24h by default, 30d at most.",
)
@click.option("--wait", "waits", is_flag=True, help="Show how it goes until it has ended.")
@_options
def create(
    session: Session,
    /,
    file: str,
    endpoint: str,
    window: str,
    waits: bool,
    url: str | None,
    key_file: str | None,
    timeout: float,
) -> None:
    """Upload FILE (- is stdin) and make a batch of it. Its id goes to stdout."""
    found = gateway(session, url, key_file, timeout)
    name = "stdin.jsonl" if file == "-" else Path(file).name
    with _opened(file) as content:
        uploaded = found.upload("/v1/files", {"purpose": "batch"}, name, content)
    wanted = {"input_file_id": uploaded["id"], "endpoint": endpoint, "completion_window": window}
    try:
        batch = found.ask("POST", "/v1/batches", wanted)
    except GatewayError:
        with contextlib.suppress(GatewayError):  # the reason for the first one matters
            found.ask("DELETE", f"/v1/files/{uploaded['id']}")
        raise
    out(batch["id"])
    if waits:
        _wait(found, batch["id"], None)


@command.command("get", short_help="Show one batch, and what holds it up.")
@click.argument("batch")
@_output
@_options
def get(
    session: Session,
    /,
    batch: str,
    output: str | None,
    url: str | None,
    key_file: str | None,
    timeout: float,
) -> None:
    """Show one batch, with what is wrong with its file or what holds it up."""
    shown = _show(gateway(session, url, key_file, timeout), batch)
    if output is not None:
        _print_whole(shown, output)
        return
    _print_table(session, [shown])
    _explain(shown)


@command.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 100), default=20, metavar="N", help="The newest N, 20 by default."
)
@_output
@_options
def list_(
    session: Session,
    /,
    limit: int,
    output: str | None,
    url: str | None,
    key_file: str | None,
    timeout: float,
) -> None:
    """List the batches of this key, the newest first."""
    found = gateway(session, url, key_file, timeout).ask("GET", f"/v1/batches?limit={limit}")
    if output is not None:
        _print_whole(found, output)
    elif found["data"]:
        _print_table(session, found["data"])
    else:
        say("No batches found.")


@command.command("cancel")
@click.argument("batch")
@_options
def cancel(session: Session, /, batch: str, url: str | None, key_file: str | None, timeout: float) -> None:
    """End a batch. What it has answered stays; the other rows are named in its error file."""
    shown = gateway(session, url, key_file, timeout).ask("POST", f"/v1/batches/{_name(batch)}/cancel")
    say(f"batch/{shown['id']} {shown['status']}")


@command.command("wait")
@click.argument("batch")
@click.option(
    "--for",
    "longest",
    type=Duration(),
    metavar="DURATION",
    help="Give up after this time; by default when the batch ends.",
)
@_options
def wait(
    session: Session,
    /,
    batch: str,
    longest: float | None,
    url: str | None,
    key_file: str | None,
    timeout: float,
) -> None:
    """Show how a batch goes until it has ended. Exits with 217 when it ends otherwise than completed, with 208 when the time is over."""
    _wait(gateway(session, url, key_file, timeout), batch, longest)


@command.command("results", short_help="Print the answers of a batch that has ended.")
@click.argument("batch")
@click.option("--errors", is_flag=True, help="The error file: what was refused, and what was never asked.")
@click.option(
    "-O",
    "--output-file",
    "target",
    metavar="FILE",
    help="Instead of stdout; it is written whole or not at all.",
)
@_options
def results(
    session: Session,
    /,
    batch: str,
    errors: bool,
    target: str | None,
    url: str | None,
    key_file: str | None,
    timeout: float,
) -> None:
    """Print the answers of a batch that has ended, one JSON object a line, in the order of its file."""
    found = gateway(session, url, key_file, timeout)
    shown = _show(found, batch)
    if shown["status"] not in _ENDED:
        raise CliError(
            f"error: the batch is {shown['status']}; llmctl batch wait {batch} waits for its end",
            ExitCode.UNAVAILABLE,
        )
    file = shown["error_file_id" if errors else "output_file_id"]
    if file is None:
        say(f"The batch has no {'errors' if errors else 'answers'}.")
        return
    pieces = found.pieces(f"/v1/files/{file}/content")
    if target is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file_:
            for piece in pieces:
                file_.write(piece)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = Path(file).open("rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    with opened:
        yield opened


def _name(batch: str) -> str:
    """As a path takes it. Raises UsageError."""
    name = batch.removeprefix("batch/")
    if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii():
        raise UsageError(
            f'"{batch}" is not the id of a batch: it looks like batch_4zr2..., see llmctl batch list'
        )
    return name


def _show(found: Gateway, batch: str) -> dict[str, Any]:
    return found.ask("GET", f"/v1/batches/{_name(batch)}")


def _wait(found: Gateway, batch: str, longest: float | None) -> None:
    started = heard = time.monotonic()
    with batch_progress.Progress() as showing:
        while True:
            now = time.monotonic()
            try:
                shown = _show(found, batch)
                heard = now
                showing.show(shown)
            except GatewayError as error:
                if error.code not in _AWAY or now - heard > _AWAY_S:
                    raise
                shown = {"status": "unknown"}
            if shown["status"] in _ENDED:
                break
            if longest is not None and now - started >= longest:
                raise CliError(f"error: timed out waiting for batch/{_name(batch)}", ExitCode.TIMEOUT)
            threading.Event().wait(_PERIOD_S)
    say(f"batch/{shown['id']} {batch_progress.words(shown)}")
    _explain(shown)
    if shown["status"] != "completed":
        raise CliError(f"error: the batch has not completed: it is {shown['status']}", ExitCode.UNEXPECTED)


def _print_table(session: Session, batches: list[dict[str, Any]]) -> None:
    from llmop.cli import printing
    from llmop.domain import times

    now = session.clock.now()
    rows = [["ID", "STATUS", "DONE", "FAILED", "TOTAL", "AGE"]]
    for batch in batches:
        total, completed, failed = batch_progress.counts(batch)
        age = times.human(max(0.0, now - batch["created_at"]))
        rows.append([batch["id"], batch["status"], str(completed), str(failed), str(total), age])
    out("\n".join(printing.table(rows)))


def _explain(batch: Mapping[str, Any]) -> None:
    for problem in (batch.get("errors") or {}).get("data") or ():
        where = f"line {problem['line']}: " if problem.get("line") else ""
        say(f"{where}{problem['message']}")
    if words := batch_progress.waiting(batch):
        say(f"It waits: {words}")


def _print_whole(value: Mapping[str, Any], output: str) -> None:
    from llmop.cli import printing

    out(
        printing.to_json(value) if output == "json" else printing.to_yaml(value),
        end="\n" if output == "json" else "",
    )
