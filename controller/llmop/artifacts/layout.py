"""Where things lie below a cluster's shared directory.

    images/<hex>.sif            a finished image; images/<hex>.json says what it is
    models/<hex>/               finished weights; models/<hex>.json
    images/.staging/<hex>/      an image under way: what has been fetched stays here between attempts
    images/.staging/<hex>.lock/ whose turn it is
    images/.staging/<hex>.job/  the Slurm job that does it, if one does: what is known of it, and its log

A finished name appears by one rename: whoever sees it may use it.
"""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmop.files import whole

STAGING = ".staging"
IMAGES, MODELS = "images", "models"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The paths of one artifact."""

    final: Path
    facts: Path
    work: Path
    lock: Path
    job: Path

    @property
    def folder(self) -> Path:
        return self.final.parent


def require(shared_dir: Path) -> None:
    """Raises FileNotFoundError where the shared directory is not there. What lies in it is made here, but not it itself: its file system
    may not be mounted.
    """
    if not shared_dir.exists():
        raise FileNotFoundError(errno.ENOENT, "the shared directory is not there", str(shared_dir))


def place(shared_dir: Path, entry: str) -> Place:
    """`entry` is what `domain.artifact.entry` gives."""
    final = shared_dir / entry
    stem = final.name.removesuffix(".sif")
    staging = final.parent / STAGING
    return Place(
        final=final,
        facts=final.parent / f"{stem}.json",
        work=staging / stem,
        lock=staging / f"{stem}.lock",
        job=staging / f"{stem}.job",
    )


def bytes_in(path: Path) -> int:
    """The size of a file, or of all files below a directory; those that vanish meanwhile count nothing."""
    total = 0
    if not path.is_dir():
        with contextlib.suppress(OSError):
            total = path.stat().st_size
    for root, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118  (hot for large trees)
    return total


def free_bytes(folder: Path) -> int:
    """What this account may still write to the file system of `folder`. Quotas are not in this number. Raises OSError."""
    return shutil.disk_usage(folder).free


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Atomic. Raises OSError."""
    whole.write(path, json.dumps(data).encode(), 0o666)


def read_json(path: Path) -> dict[str, Any]:
    """{} when there is nothing that can be read."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
