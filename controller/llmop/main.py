"""The command `llmop`: the processes of an installation."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import click

from llmop import __version__
from llmop.domain import os_errors
from llmop.domain.errors import Deposed, LlmopError
from llmop.settings import DEPOSED, STORE_VARIABLE, VECTORS_VARIABLE, ControllerSettings

STATE_DIR = "~/.local/share/llmop"


@click.group(
    help="Runs the processes of an llmop installation. People use llmctl.",
    context_settings={"help_option_names": ["-h", "--help"]},  # as llmctl
)
@click.version_option(__version__, prog_name="llmop")
def cli() -> None:
    pass


_state_dir = click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=STATE_DIR,
    show_default=True,
    help="Private directory of this installation: database, sockets, certificates, keys.",
)


_vectors = click.option(
    "--vectors",
    default="",
    envvar=VECTORS_VARIABLE,
    help="Database of the vector stores: postgresql://user@host/database, with pgvector. A password belongs into ~/.pgpass or, as part of"
    f" the address, into the variable {VECTORS_VARIABLE}: others see arguments.  [default: a file in the state directory]",
)


@cli.command(
    help="Runs the controller: the control API, the reconciler and the listener for agents.",
    short_help="Runs the controller.",
)
@_state_dir
@click.option(
    "--store",
    default="",
    envvar=STORE_VARIABLE,
    help="Database: sqlite:///path or postgresql://... A password belongs into ~/.pgpass or, as part of the address, into the "
    f"variable {STORE_VARIABLE}: others see arguments.  [default: SQLite in the state directory]",
)
@click.option(
    "--agent-listen",
    default="127.0.0.1:0",
    show_default=True,
    help="Where agents reach the controller; on a cluster 0.0.0.0:PORT.",
)
@click.option(
    "--agent-advertise",
    default="",
    help="Host name or address that nodes use.  [default: the address of this machine]",
)
@click.option(
    "--tls-dir",
    type=click.Path(path_type=Path),
    help="Private directory of the CA that agents trust: one that every machine sees on which a controller of this installation"
    " may run.  [default: tls in the state directory]",
)
@click.option("--gateway-url", default="", help="The gateway's public address, shown in statuses.")
@click.option(
    "--local",
    "local_cluster",
    is_flag=True,
    help="Make this machine the Cluster `default` when there is no Cluster yet.",
)
def controller(
    state_dir: Path,
    store: str,
    agent_listen: str,
    agent_advertise: str,
    tls_dir: Path | None,
    gateway_url: str,
    local_cluster: bool,
) -> None:
    from llmop import daemon
    from llmop.telemetry import logs

    logs.configure()
    host, _, port = agent_listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise click.UsageError(f'--agent-listen "{agent_listen}": write host:port, for example 0.0.0.0:7443')
    settings = ControllerSettings(
        state_dir=_absolute(state_dir),
        store=store,
        agent_host=host.strip("[]"),
        agent_port=int(port),
        agent_advertise=agent_advertise,
        tls_dir=_absolute(tls_dir) if tls_dir is not None else None,
        gateway_url=gateway_url,
        local_cluster=local_cluster,
    )

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await daemon.run(settings, stop=stop)

    asyncio.run(serve())


@cli.command(help="Runs a gateway: one address for all models.")
@_state_dir
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    help="host:port, or unix:/path in a private directory.",
)
@click.option(
    "--controller",
    "address",
    default="",
    help="The control API.  [default: the socket in the state directory]",
)
@click.option(
    "--name", default="gateway", show_default=True, help="Unique among the gateways of an installation."
)
@click.option(
    "--workloads",
    "workloads_socket",
    type=click.Path(path_type=Path),
    help="The socket of llmop workloads.  [default: the one in the state directory]",
)
@click.option("--behind-proxy", is_flag=True, help="Something in front of it speaks TLS.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key (PEM).")
@click.option(
    "--body-limit", type=int, default=32 << 20, show_default=True, help="Largest request body in bytes."
)
@click.option(
    "--workers", type=int, default=1, show_default=True, help="Processes that take requests, one per core."
)
def gateway(
    state_dir: Path,
    listen: str,
    address: str,
    name: str,
    workloads_socket: Path | None,
    behind_proxy: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    body_limit: int,
    workers: int,
) -> None:
    from llmop.gateway import main
    from llmop.gateway.settings import GatewaySettings
    from llmop.telemetry import logs

    logs.configure()
    installation = ControllerSettings(state_dir=_absolute(state_dir))
    _make_for_keys(installation)
    main.serve(
        GatewaySettings(
            controller=address or installation.socket,
            listen=listen,
            keys_file=installation.keys_file,
            state_dir=installation.keys_file.parent,
            workloads=_absolute(workloads_socket or installation.workloads_socket),
            name=name,
            behind_proxy=behind_proxy,
            tls_cert=tls_cert,
            tls_key=tls_key,
            body_limit=body_limit,
            workers=workers,
        )
    )


@cli.command(
    help="Runs files, batches, vector stores, tribunals and assistants, which ask models through a gateway.",
    short_help="Runs what asks models: batches, tribunals.",
)
@_state_dir
@click.option(
    "--gateway",
    "address",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="The gateway: http://host:port, https://host or unix:/path.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1024),
    default=64,
    show_default=True,
    help="Rows of batches that are asked at once per key and model, at most; a gateway that is full gets fewer.",
)
@click.option(
    "--keep-days",
    type=click.IntRange(1, 36_500),
    default=30,
    show_default=True,
    help="How long a batch that has ended is kept, with its files, and a file of requests that no batch uses.",
)
@click.option(
    "--keep-gone-days",
    type=click.IntRange(0, 36_500),
    default=30,
    show_default=True,
    help="How long files, batches and vector stores are kept after the APIKey that they belong to is gone; 0 = for ever.",
)
@_vectors
@click.option(
    "--vector-memory",
    type=click.IntRange(1, 1_048_576),
    default=1024,
    show_default=True,
    help="MiB of memory for the vectors of the stores that are searched, all together; not with --vectors.",
)
@click.option(
    "--files-per-key",
    type=click.IntRange(1, 10_000_000),
    default=10_000,
    show_default=True,
    help="Uploaded files that a key may have, at most.",
)
@click.option(
    "--gib-per-key",
    type=click.IntRange(1, 1_048_576),
    default=64,
    show_default=True,
    help="GiB that the files of a key and the passages in its vector stores may take together.",
)
def workloads(
    state_dir: Path,
    address: str,
    concurrency: int,
    keep_days: int,
    keep_gone_days: int,
    vectors: str,
    vector_memory: int,
    files_per_key: int,
    gib_per_key: int,
) -> None:
    from llmop import statedir
    from llmop.gateway import keys
    from llmop.telemetry import logs
    from llmop.workloads import main
    from llmop.workloads.quota import Quota
    from llmop.workloads.settings import WorkloadsSettings

    logs.configure()
    if not address.startswith(("http://", "https://", "unix:/")):
        raise click.UsageError(f'--gateway "{address}": write http://host:port, https://host or unix:/path')
    installation = ControllerSettings(state_dir=_absolute(state_dir))
    _make_for_keys(installation)
    statedir.ensure(installation.workloads_dir)
    main.serve(
        WorkloadsSettings(
            directory=installation.workloads_dir,
            socket=installation.workloads_socket,
            gateway=address,
            controller=installation.socket,
            key=keys.kept(installation.keys_file, keys.OF_WORKLOADS, installation.workloads_dir / "key"),
            concurrency=concurrency,
            keep_s=keep_days * 86_400.0,
            keep_gone_s=keep_gone_days * 86_400.0,
            in_file=lambda: {found.hex() for found in keys.load(installation.keys_file)},
            quota=Quota(files=files_per_key, bytes=gib_per_key * 1024**3),
            vectors=vectors,
            vector_memory=vector_memory * 1024**2,
        )
    )


@cli.command(
    help="Runs everything on this machine: controller, gateway, workloads, and deployments as local processes.",
    short_help="Runs everything on this machine.",
)
@_state_dir
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    help="Address of the gateway; port 0 = any free one.",
)
@click.option(
    "--store",
    default="",
    envvar=STORE_VARIABLE,
    help="Database: sqlite:///path or postgresql://... A password belongs into ~/.pgpass or, as part of the address, into the "
    f"variable {STORE_VARIABLE}: others see arguments.  [default: SQLite in the state directory]",
)
@click.option(
    "--ephemeral",
    is_flag=True,
    help="At the end stop all local replicas too, and delete the state directory.",
)
@_vectors
@click.option("--quiet", is_flag=True, help="Write the logs of the processes to the state directory only.")
def up(state_dir: Path, listen: str, store: str, vectors: str, ephemeral: bool, quiet: bool) -> None:
    from llmop import up as supervisor

    sys.exit(
        supervisor.run(
            _absolute(state_dir),
            listen=listen,
            store=store,
            vectors=vectors,
            ephemeral=ephemeral,
            quiet=quiet,
        )
    )


@cli.group(help="Keys of the gateway's users.")
def key() -> None:
    pass


@key.command(
    "create", help="Makes a key and prints it: this is the only time it can be seen. Only its hash is kept."
)
@_state_dir
@click.argument("name")
def key_create(state_dir: Path, name: str) -> None:
    from llmop.gateway import keys

    installation = ControllerSettings(state_dir=_absolute(state_dir))
    if not installation.state_dir.is_dir():
        raise click.UsageError(
            f"there is no installation in {installation.state_dir}: name its --state-dir, or start it first"
        )
    if keys.is_reserved(name):
        raise click.UsageError(f'key name "{name}": such keys belong to llmop workloads; take another name')
    _make_for_keys(installation)
    click.echo(keys.create(installation.keys_file, name))


def _make_for_keys(installation: ControllerSettings) -> None:
    from llmop import statedir

    statedir.ensure(installation.state_dir)
    statedir.ensure(installation.keys_file.parent)


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def main() -> None:
    """Errors on purpose are one line; everything else is a fault of ours and shows its trace."""
    os.umask(0o077)  # whatever is made on the way to a private directory is private too
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(202)
    except click.Abort:
        sys.exit(130)
    except Deposed as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(DEPOSED)
    except LlmopError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"error: {os_errors.sentence(error)}", err=True)
        sys.exit(1)
