"""llmctl discover."""

from pathlib import Path

import click

from llmop.cli.errors import ConfigError
from llmop.cli.session import Session, connection_options, out, say
from llmop.domain import os_errors

# Six commands of Slurm at thirty seconds each.
_TIMEOUT_S = 200.0


@click.command("discover")
@click.option(
    "--cluster", default="default", metavar="NAME", help="Name of the Cluster to write.  [default: default]"
)
@click.option(
    "--shared-dir",
    default="",
    metavar="PATH",
    help="Its sharedDir: a directory that the controller and all nodes see.  [default: llmop-shared in the home directory, to be checked]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write one file for each object there; existing files stay.  [default: everything on stdout]",
)
@connection_options
@click.pass_obj
def command(session: Session, cluster: str, shared_dir: str, output: Path | None) -> None:
    """Ask Slurm about the site, and write a Cluster and its ResourceProfiles for review.

    The controller asks, on its host and as its account: scontrol, sinfo, and sacctmgr where there is one. Nothing is stored; review
    the text, then give it to llmctl apply.
    """
    from llmop.api.v1 import admin_pb2

    answer = session.client.call(
        session.client.admin.Discover,
        admin_pb2.DiscoverRequest(cluster=cluster, shared_dir=shared_dir),
        timeout_s=max(session.request_timeout, _TIMEOUT_S),
    )
    if output is None:
        out("---\n".join(each.text for each in answer.files).rstrip("\n"))
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        for each in answer.files:
            path = output / Path(each.name).name
            with path.open("x", encoding="utf-8") as file:
                file.write(each.text)
            say(f"{path} written")
    except OSError as error:
        raise ConfigError(os_errors.sentence(error)) from error
