"""Real container images, made on the spot from this machine's own files: nothing is pulled."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.rigs.errors import RigError
from tests.rigs.interpreter import CACHE, NOT_NEEDED, user_python
from tests.rigs.processes import machine_lock

TOOLS = (
    "sh",
    "env",
    "cat",
    "ls",
    "cp",
    "mv",
    "rm",
    "mkdir",
    "ln",
    "id",
    "sleep",
    "true",
    "uname",
    "hostname",
    "touch",
    # What the launchers of the built-in runtimes use besides.
    "awk",
    "chmod",
    "head",
    "mkfifo",
    "tr",
)
FOLDERS = (
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "var/tmp",
    "root",
    "home",
    "mnt",
    "etc",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
)
STANDARD = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")


def engine_image() -> Path:
    """A SIF that every account can read, with python3 (its whole standard library), a shell and basic tools.

    Made once for a recipe and a Python; two builders at once make one image. Raises RigError.
    """
    if shutil.which("apptainer") is None:
        raise RigError("apptainer is not installed; run hack/install-apptainer")
    python = user_python()
    facts = _ask(python, "import sys, sysconfig; print(sysconfig.get_path('stdlib')); print(sys.version)")
    key = hashlib.sha256(f"{facts} {Path(__file__).read_text()}".encode()).hexdigest()[:12]
    image = CACHE / f"llmop-test-engine-{key}.sif"
    with machine_lock("image"):
        if not image.exists():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="llmop-test-image-") as folder:
                tree = Path(folder) / "tree"
                _fill(tree, python, Path(facts.splitlines()[0]))
                made = Path(folder) / "engine.sif"
                _build(made, tree)
                made.chmod(0o644)
                made.rename(image)
    return image


def _fill(tree: Path, python: Path, stdlib: Path) -> None:
    for name in FOLDERS:
        (tree / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    (tree / "sbin").symlink_to("usr/bin")
    for name in ("tmp", "var/tmp"):
        (tree / name).chmod(0o1777)

    # Python finds its library by looking for ../lib/python3.x next to the program.
    shutil.copytree(
        stdlib, tree / "usr/lib" / stdlib.name, ignore=shutil.ignore_patterns(*NOT_NEEDED, "*.a", "config-*")
    )
    shutil.copy2(python.resolve(), tree / "usr/bin" / stdlib.name)
    for name in ("python3", "python"):
        (tree / "usr/bin" / name).symlink_to(stdlib.name)
    programs = [python.resolve(), *stdlib.rglob("*.so")]
    for tool in TOOLS:
        found = shutil.which(tool, path="/usr/bin:/bin")
        if found is None:
            raise RigError(f"this machine has no {tool} to put into the image")
        shutil.copy2(Path(found).resolve(), tree / "usr/bin" / tool)
        programs.append(Path(found))
    for library in _libraries(programs):
        # What lies elsewhere (an interpreter built with a shared library) goes where the loader always looks.
        place = str(library) if str(library).startswith(STANDARD) else f"/usr/lib/{library.name}"
        target = tree / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library.resolve(), target)

    (tree / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    )
    (tree / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (tree / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (tree / "etc/resolv.conf").touch()


def _libraries(programs: list[Path]) -> set[Path]:
    """The shared libraries these files load, by ldd(1), under the names they are loaded by."""
    done = subprocess.run(
        ["ldd", *map(str, programs)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "LC_ALL": "C"},
    )
    missing = re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE)
    if missing:
        raise RigError(f"this machine's Python lacks the library {missing[0]}")
    return {Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE)}


def _build(image: Path, tree: Path) -> None:
    done = subprocess.run(
        ["apptainer", "--quiet", "build", str(image), str(tree)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
        check=False,
        env={
            **os.environ,
            "APPTAINER_TMPDIR": str(image.parent),
            "APPTAINER_CACHEDIR": str(image.parent / "cache"),
        },
    )
    if done.returncode != 0:
        raise RigError(f"apptainer build failed with {done.returncode}:\n{done.stdout}{done.stderr}")


def _ask(python: Path, script: str) -> str:
    return subprocess.run(
        [str(python), "-I", "-c", script], capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    sys.stdout.write(f"{engine_image()}\n")
