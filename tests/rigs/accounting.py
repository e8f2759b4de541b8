"""A private slurmdbd on a private MariaDB, for a rig that keeps accounts (slurmdbd.conf(5), mariadbd(8)).

Both live in the rig's directory, listen on loopback only and end with the rig. `Keep` is how the rig starts a daemon.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.rigs.errors import RigError
from tests.rigs.processes import wait_for
from tests.rigs.release import PATH, RELEASE

Keep = Callable[[str, Sequence[str]], None]


def start(base: Path, database_port: int, dbd_port: int, keep: Keep, listens: Callable[[int], bool]) -> None:
    """Returns when slurmdbd listens on `dbd_port`. Raises RigError."""
    for tool in ("mariadbd", "mariadb-install-db", "slurmdbd"):
        if shutil.which(tool, path=PATH) is None:
            raise RigError(f"{tool} is not installed; run hack/install-accounting")
    password = secrets.token_hex(16)
    database = base / "database"
    database.mkdir(mode=0o700)
    made = subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={database}/data",
            "--user=root",
            "--skip-test-db",
        ],
        env={"PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise RigError(f"mariadb-install-db failed: {made.stderr or made.stdout}")
    init = database / "init.sql"
    init.touch(0o600)
    init.write_text(
        "CREATE DATABASE slurm;\n"
        f"CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';\n"
        "GRANT ALL ON slurm.* TO slurm@'127.0.0.1';\n"
    )
    argv = [
        *("mariadbd", "--no-defaults", "--user=root", f"--datadir={database}/data"),
        *(f"--socket={database}/mariadb.sock", f"--pid-file={database}/pid", f"--init-file={init}"),
        *("--bind-address=127.0.0.1", f"--port={database_port}", "--skip-name-resolve"),
        *(
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
        ),
    ]
    keep("mariadbd", argv)
    wait_for("MariaDB to listen", lambda: listens(database_port), timeout=60)
    configuration = base / "etc" / "slurmdbd.conf"
    configuration.touch(0o600)
    settings: Mapping[str, str] = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={base}/run/munge.socket",
        "DbdHost": "localhost",
        "DbdAddr": "127.0.0.1",
        "DbdPort": str(dbd_port),
        "SlurmUser": "root",
        "PidFile": f"{base}/run/slurmdbd.pid",
        "LogFile": f"{base}/log/slurmdbd.log",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "127.0.0.1",
        "StoragePort": str(database_port),
        "StorageUser": "slurm",
        "StoragePass": password,
        "StorageLoc": "slurm",
    }
    if RELEASE:
        settings = {**settings, "PluginDir": f"{RELEASE}/lib/slurm"}
    configuration.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    keep("slurmdbd", ["slurmdbd", "-D"])
    wait_for("slurmdbd to listen", lambda: listens(dbd_port), timeout=60)
