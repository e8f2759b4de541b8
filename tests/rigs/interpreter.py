"""A Python that ordinary accounts can run, whatever Python the tests themselves run on.

The tests often run as root on an interpreter under root's home (pyenv, uv), which no other account can read.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.rigs.errors import RigError
from tests.rigs.processes import as_account, machine_lock, need_account

CACHE = Path("/var/tmp")
OLDEST = (3, 11)
NOT_NEEDED = (
    "test",
    "tests",
    "idlelib",
    "turtledemo",
    "tkinter",
    "lib2to3",
    "site-packages",
    "dist-packages",
)

_PROBE = f"import ensurepip, ssl, sys, venv; sys.exit(sys.version_info < {OLDEST!r})"


@functools.cache
def user_python(user: str = "llmoptest") -> Path:
    """An interpreter >= 3.11 that can make virtual environments and that `user` can run.

    The tests' own one, the system's, or else a copy of the tests' own one under /var/tmp. Raises RigError.
    """
    account = need_account(user)
    own = own_python()
    for candidate in (own, Path("/usr/bin/python3"), Path("/usr/local/bin/python3")):
        # Run from / with a clean environment: a version manager's shims would find root's Python again.
        done = subprocess.run(
            as_account(account, [str(candidate), "-I", "-c", _PROBE]),
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "HOME": account.pw_dir},
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            return candidate
    return copy_interpreter(own)


def own_python() -> Path:
    """The interpreter that runs this, not the virtual environment's link to it."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def copy_interpreter(executable: Path) -> Path:
    """Copies the running interpreter and its standard library, once, to where every account can read them."""
    prefix = Path(sys.base_prefix)
    key = hashlib.sha256(f"{executable} {sys.version}".encode()).hexdigest()[:12]
    target = CACHE / f"llmop-test-python-{key}"
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    program = target / "bin" / name
    with machine_lock("python"):
        if program.exists():
            return program
        partial = target.with_name(f"{target.name}.new")
        shutil.rmtree(partial, ignore_errors=True)
        stdlib = Path(sysconfig.get_path("stdlib"))
        shutil.copytree(
            stdlib, partial / "lib" / name, ignore=shutil.ignore_patterns(*NOT_NEEDED), symlinks=True
        )
        for library in prefix.glob("lib/libpython*.so*"):
            shutil.copy2(library, partial / "lib" / library.name, follow_symlinks=False)
        (partial / "bin").mkdir()
        copy = Path(shutil.copy2(executable, partial / "bin" / name))
        if any(partial.glob("lib/libpython*.so*")):
            # A shared build finds its library by an absolute path under the old prefix.
            if shutil.which("patchelf") is None:
                raise RigError(f"ordinary accounts can't run {executable}; install python3-venv or patchelf")
            subprocess.run(
                ["patchelf", "--force-rpath", "--set-rpath", "$ORIGIN/../lib", str(copy)],
                check=True,
                timeout=60,
            )
        partial.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    return program
