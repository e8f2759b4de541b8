"""Images as SIF files: blobs of a registry in an OCI layout, of which `apptainer build` (or singularity) makes one, without a network.

The layout follows the OCI image specification (image-layout.md). The blobs stay between attempts; what is unpacked goes with each.
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from llmop.artifacts import registry
from llmop.domain import artifact
from llmop.domain.errors import NeedsUser, Unavailable

PROGRAMS = ("apptainer", "singularity")
LIMIT_S = 6 * 3600.0
# Proxies and certificates belong to the site, not to us; everything else of our environment is kept away.
PASSED_ON = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec only the call itself is safe
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What staging may see of `given`."""
    kept = {name: given[name] for name in (*PASSED_ON, "HOME", "USER", "LOGNAME") if name in given}
    return {"PATH": given.get("PATH") or os.defpath, "LANG": "C.UTF-8", **kept}


def fetch(source: registry.Registry, image: registry.Image, layout: Path) -> None:
    """Makes `layout` a complete OCI layout of `image`; blobs that are there are not fetched again.

    Raises NeedsUser, Unavailable or OSError.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    for blob in dict.fromkeys((image.config, *image.layers)):
        path = blobs / blob.digest.removeprefix("sha256:")
        if not path.exists():
            source.fetch(blob, path)
    digest = registry.digest_of(image.manifest)
    (blobs / digest.removeprefix("sha256:")).write_bytes(image.manifest)
    entry = {
        "mediaType": image.media_type,
        "digest": digest,
        "size": len(image.manifest),
    }
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


class Builder:
    """Makes a SIF of a layout, unpacking in `tmp`, which is removed afterwards. `kill` may be called from another thread."""

    def __init__(self, reference: artifact.Reference, work: Path, tmp: Path) -> None:
        self._reference = reference
        self._work = work
        self._tmp = tmp
        self._process: subprocess.Popen[bytes] | None = None

    def check(self) -> str:
        """The program to use. Raises NeedsUser where there is none."""
        program = next((found for each in PROGRAMS if (found := shutil.which(each))), None)
        if program is None:
            raise NeedsUser(
                "Unsupported",
                f"{self._reference.text}: the PATH of the stager on {socket.gethostname()} has neither apptainer nor singularity;"
                " put one there, or build a .sif and write its path",
            )
        return program

    def build(self, layout: Path, target: Path) -> None:
        """Raises NeedsUser (NoSpace, Unsupported) or Unavailable."""
        argv = [
            self.check(),
            "--quiet",
            "build",
            "--disable-cache",
            "--force",
            str(target),
            f"oci:{layout}",
        ]
        self._tmp.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = self._work / "build.log"
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    argv,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._work,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509  (between fork and exec it makes one system call)
                )
            code = self._process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                f"{self._reference.text}: its image was not made in {LIMIT_S / 3600:.0f} h"
            ) from error
        finally:
            self.kill()
            if self._process is not None:
                self._process.wait()
            shutil.rmtree(self._tmp, ignore_errors=True)
        if code != 0:
            raise problem(self._reference, _words(log), code)

    def kill(self) -> None:
        """Ends it with everything that it started. Does not wait: it is also called by a signal handler."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _environment(self) -> dict[str, str]:
        result = environment(os.environ)
        for prefix in ("APPTAINER", "SINGULARITY"):
            result[f"{prefix}_CACHEDIR"] = str(self._tmp)
            result[f"{prefix}_TMPDIR"] = str(self._tmp)
        return result


def problem(reference: artifact.Reference, words: str, code: int) -> NeedsUser | Unavailable:
    """What the last words of a build mean for people."""
    low = words.lower()
    text = f"{reference.text}: {words or f'the build ended with code {code}'}"
    if "no space left on device" in low or "disk quota exceeded" in low:
        return NeedsUser("NoSpace", text)
    return Unavailable(text)


def _words(log: Path) -> str:
    """The last line that says something, without colours and the level in front, both its ends when it is long."""
    try:
        lines = _COLOURS.sub("", log.read_text(encoding="utf-8", errors="replace")[-65536:]).splitlines()
    except OSError:
        return ""
    told = [line.strip() for line in lines if line.strip()]
    fatal = [line for line in told if line.startswith(("FATAL", "ERROR"))]
    last = re.sub(r"^(FATAL|ERROR|WARNING|INFO):\s*", "", (fatal or told or [""])[-1])
    return last if len(last) <= 500 else f"{last[:200]} ... {last[-250:]}"


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
