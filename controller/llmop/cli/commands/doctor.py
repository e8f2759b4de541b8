"""llmctl doctor."""

import click

from llmop.cli.session import Session, connection_options

_TIMEOUT_S = 60.0


@click.command("doctor")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="table or json.")
@connection_options
@click.pass_obj
def command(session: Session, output: str) -> None:
    """Look at the health of the installation; nothing is changed.

    Exits with 217 when a check failed.
    """
    from llmop.api.v1 import admin_pb2
    from llmop.cli import checks

    answer = session.client.call(
        session.client.admin.Doctor,
        admin_pb2.DoctorRequest(),
        timeout_s=max(session.request_timeout, _TIMEOUT_S),
    )
    checks.show(answer.checks, output)
