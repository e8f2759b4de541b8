"""llmop installed as its users install it: a wheel in a virtual environment that ordinary accounts can read."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.rigs.errors import RigError
from tests.rigs.interpreter import CACHE, user_python
from tests.rigs.processes import machine_lock

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "llmop-test-venv-"
SOURCES = ("pyproject.toml", "README.md", "controller/llmop", "migrations", "manifests")
KEEP = 4  # environments of older contents, for test runs that may still use them


def user_venv() -> Path:
    """The folder of a virtual environment with this checkout's llmop; its programs are in bin/.

    Dependencies are installed once for a pyproject.toml and a Python. The wheel gets an environment for each of its
    contents, so that a run on another checkout never changes this one's. Raises RigError.
    """
    python = user_python()
    dependencies = _dependencies(python)
    target = CACHE / f"{PREFIX}{_digest(dependencies.name, *_contents())}"
    with machine_lock("venv"):
        if not (target / ".ready").exists():
            shutil.rmtree(target, ignore_errors=True)
            _run([str(python), "-I", "-m", "venv", "--without-pip", str(target)])
            site = next(target.glob("lib/python*/site-packages"))
            (site / "dependencies.pth").write_text(
                f"{next(dependencies.glob('lib/python*/site-packages'))}\n"
            )
            pip = [
                str(dependencies / "bin" / "python"),
                "-I",
                "-m",
                "pip",
                "--python",
                str(target / "bin" / "python"),
            ]
            with tempfile.TemporaryDirectory() as folder:
                _run(
                    [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
                    cwd=ROOT,
                )
                (wheel,) = Path(folder).glob("*.whl")
                _run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)])
            (target / ".ready").touch()
        os.utime(target)
        _prune()
    return target


def _dependencies(python: Path) -> Path:
    """A virtual environment with what llmop's wheel requires, and pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = _run([str(python), "-I", "-c", "import sys; print(sys.version)"])
    target = CACHE / f"llmop-test-dependencies-{_digest(str(python), version, *project['dependencies'])}"
    with machine_lock("dependencies"):
        if not (target / ".ready").exists():
            shutil.rmtree(target, ignore_errors=True)
            _run([str(python), "-I", "-m", "venv", str(target)])
            _run(
                [
                    str(target / "bin" / "python"),
                    "-I",
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    *project["dependencies"],
                ]
            )
            (target / ".ready").touch()
    return target


def _contents() -> list[str]:
    """Name and content hash of every file that goes into the wheel."""
    files: list[Path] = []
    for source in SOURCES:
        path = ROOT / source
        files += [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [
        f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file in files
        if "__pycache__" not in file.parts
    ]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _prune() -> None:
    by_age = sorted(CACHE.glob(f"{PREFIX}*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in by_age[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def _run(argv: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        umask=0o022,
        timeout=900,
        check=False,
    )
    if done.returncode != 0:
        raise RigError(f"{' '.join(argv)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
