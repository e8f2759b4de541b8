"""llmctl top."""

import threading
from typing import Any

import click

from llmop.cli.session import Duration, Session, context_option, out
from llmop.cli.talking import address_options, gateway


@click.command("top")
@click.option(
    "--interval",
    type=Duration(),
    default="2s",
    metavar="DURATION",
    help="Over which time rates are measured, 2s by default.",
)
@click.option("--no-headers", is_flag=True, help="The table without its first line.")
@address_options
@context_option
@click.pass_obj
def command(
    session: Session,
    interval: float,
    no_headers: bool,
    url: str | None,
    key_file: str | None,
    wanted: str | None,
    timeout: float,
) -> None:
    """Show the load of the models as a gateway counts it: requests under way, per second, failed, and the time to the first byte.

    A gateway counts by model, and knows only the requests that went through itself.
    """
    from llmop.cli import load, printing
    from llmop.cli.errors import CliError, ExitCode, UsageError

    if interval <= 0:
        raise UsageError("--interval must be more than 0")
    found = gateway(session, url, key_file, timeout)
    before = load.read(found.get("/metrics").decode("utf-8", "replace"))
    began = session.clock.monotonic()
    threading.Event().wait(interval)
    after = load.read(found.get("/metrics").decode("utf-8", "replace"))
    rows = load.table(before, after, session.clock.monotonic() - began)
    if wanted:
        rows = [row for row in rows if row[0] == wanted]
        if not rows:
            raise CliError(f'error: the gateway knows no model "{wanted}"', ExitCode.NOT_FOUND)
    header: list[Any] = [] if no_headers else [list(load.COLUMNS)]
    if header or rows:
        out("\n".join(printing.table([*header, *rows])))
