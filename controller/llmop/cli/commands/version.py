"""llmctl version."""

import click

import llmop
from llmop.cli.session import Session, connection_options, out


@click.command("version")
@click.option("--client", "client_only", is_flag=True, help="Only the version of llmctl; asks nobody.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), help="As data.")
@connection_options
@click.pass_obj
def command(session: Session, client_only: bool, output: str | None) -> None:
    """Print the versions of llmctl and of the controller, and the installation's name."""
    known = {"clientVersion": llmop.__version__}
    if output is None:
        out(f"Client Version: {llmop.__version__}")
    if not client_only:
        from llmop.api.v1 import resources_pb2

        answer = session.client.call(session.client.resources.Kinds, resources_pb2.KindsRequest())
        known |= {"serverVersion": answer.version, "installation": answer.installation}
        if output is None:
            out(f"Server Version: {answer.version}")
            out(f"Installation: {answer.installation}")
    if output is not None:
        from llmop.cli import printing

        write = printing.to_yaml if output == "yaml" else printing.to_json
        out(write(known).rstrip("\n"))
