"""llmctl top."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from llmop.cli.session import Duration, Session, context_option, out
from llmop.cli.talking import Gateway, gateway, gateway_options

if TYPE_CHECKING:
    from llmop.cli import load


@click.command("top")
@click.option(
    "--interval",
    type=Duration(),
    default="2s",
    metavar="DURATION",
    help="Over which time rates are measured, 2s by default.",
)
@click.option("--replicas", is_flag=True, help="One line for each replica: the requests there now.")
@click.option("--no-headers", is_flag=True, help="The table without its first line.")
@click.option("-m", "--model", "wanted", metavar="NAME", help="Only this model.")
@gateway_options
@context_option
@click.pass_obj
def command(
    session: Session,
    interval: float,
    replicas: bool,
    no_headers: bool,
    url: str | None,
    key_file: str | None,
    wanted: str | None,
    timeout: float,
) -> None:
    """Show the load of the models as a gateway counts it: requests under way, per second, failed, and the time to the first byte.

    A gateway knows only the requests that went through itself. With --replicas it shows how they are spread.
    """
    from llmop.cli import load
    from llmop.cli.errors import CliError, ExitCode, UsageError

    if interval <= 0:
        raise UsageError("--interval must be more than 0")
    if replicas and wanted:
        raise UsageError("a gateway counts by replica or by model: give --replicas or -m, not both")
    found = gateway(session, url, key_file, timeout)
    if replicas:
        _print(load.REPLICA_COLUMNS, load.replicas(_samples(found)), no_headers)
        return
    before = _samples(found)
    began = session.clock.monotonic()
    threading.Event().wait(interval)
    after = _samples(found)
    rows = load.table(before, after, session.clock.monotonic() - began)
    if wanted:
        rows = [row for row in rows if row[0] == wanted]
        if not rows:
            raise CliError(f'error: the gateway knows no model "{wanted}"', ExitCode.NOT_FOUND)
    _print(load.COLUMNS, rows, no_headers)


def _samples(found: Gateway) -> "load.Samples":
    from llmop.cli import load

    return load.read(found.get("/metrics").decode("utf-8", "replace"))


def _print(columns: Sequence[str], rows: list[list[str]], no_headers: bool) -> None:
    from llmop.cli import printing

    header = [] if no_headers else [list(columns)]
    if header or rows:
        out("\n".join(printing.table([*header, *rows])))
