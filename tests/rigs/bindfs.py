"""A real FUSE file system: a directory shown in another place by bindfs, as sites show theirs by a network.

Of root's mounts all accounts may make use, of others only whoever made them. File locks (flock) stay in one mount, as on a network file system whose
locks do not reach other machines: two mounts of one directory are two machines in this respect.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.rigs.errors import RigError
from tests.rigs.processes import wait_for


class Bindfs:
    """`mounted` shows what is in `source`. Both are made where they are missing. Use: `start`, `stop`."""

    def __init__(self, source: Path, mounted: Path) -> None:
        self.source = source
        self.mounted = mounted
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Bindfs:
        """Raises RigError."""
        program = shutil.which("bindfs")
        if program is None:
            raise RigError("bindfs is missing: run hack/install-test-tools")
        self.source.mkdir(parents=True, exist_ok=True)
        self.mounted.mkdir(parents=True, exist_ok=True)
        self._process = process = subprocess.Popen(
            [program, "-f", str(self.source), str(self.mounted)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

        def is_up() -> bool:
            if process.poll() is not None:
                assert process.stderr is not None
                raise RigError(f"bindfs: {process.stderr.read().decode(errors='replace')}")
            return self.mounted.is_mount()

        wait_for(f"{self.mounted} to be mounted", is_up, timeout=20)
        return self

    def break_down(self) -> None:
        """The server is gone: from now on nothing on the mount answers but with an error (ENOTCONN)."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """May be called twice. What still uses the mount keeps it until it ends."""
        if self._process is None:
            return
        subprocess.run(
            ["fusermount", "-u", "-z", str(self.mounted)], capture_output=True, timeout=20, check=False
        )
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._process = None
