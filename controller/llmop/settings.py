"""What a controller process is told. Read once, by the command line; everything below gets values."""

import dataclasses
from pathlib import Path

DEPOSED = 3  # exit code of a controller whose installation another one has taken over: starting it again would only fight
# Addresses of databases: they may hold a password, which arguments would show to everybody.
STORE_VARIABLE = "LLMOP_STORE"
VECTORS_VARIABLE = "LLMOP_VECTORS"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ControllerSettings:
    """`state_dir` holds the socket, the certificates and, by default, the database; it is private to the account.

    `agent_host` is what the agent listener binds, `agent_advertise` what nodes are told (default: the same, or this
    machine's address when it binds all). `tls_dir` is where the CA that agents trust lies when several machines take turns.
    `local_cluster` makes the Cluster `default` on this machine when there is none.
    """

    state_dir: Path
    store: str = ""  # "" = SQLite in the state directory
    agent_host: str = "127.0.0.1"
    agent_port: int = 0
    agent_advertise: str = ""
    gateway_url: str = ""
    local_cluster: bool = False
    tls_dir: Path | None = None  # None = in the state directory

    @property
    def store_url(self) -> str:
        return self.store or f"sqlite:///{self.state_dir / 'llmop.db'}"

    @property
    def own_certificates(self) -> Path:
        """Where the certificate of this controller's listener lies."""
        return self.state_dir / "tls"

    @property
    def authority(self) -> Path:
        """Where the CA lies that the installation's agents trust."""
        return self.tls_dir or self.own_certificates

    @property
    def socket(self) -> str:
        """The control API's address."""
        return f"unix://{self.state_dir / 'run' / 'controller.sock'}"

    @property
    def workloads_dir(self) -> Path:
        """What `llmop workloads` keeps."""
        return self.state_dir / "workloads"

    @property
    def workloads_socket(self) -> Path:
        """Where a gateway reaches `llmop workloads`."""
        return self.state_dir / "run" / "workloads.sock"

    @property
    def keys_file(self) -> Path:
        return self.state_dir / "gateway" / "keys"
