"""Which files of a hub's repository an engine needs, and whether they fit on a disk. Pure."""

import dataclasses
import fnmatch
from collections.abc import Sequence

from llmop.domain import artifact, staging
from llmop.domain.errors import NeedsUser

# The same weights in the formats of other frameworks, as repositories on the hub carry them beside safetensors.
_OTHER_FORMATS = (
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.onnx",
    "*.onnx_data",
    "*.tflite",
    "*.gguf",
    "original/*",
)
_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file of a repository. `size` is bytes; `checksum` is `sha256:...` for large files, `git:...` (a blob id) for others."""

    path: str
    size: int
    checksum: str


def choose(reference: artifact.Reference, files: Sequence[File]) -> tuple[File, ...]:
    """The files that `reference` asks for, by path. Raises NeedsUser when they are not there.

    Without a file: everything but hidden files; where there are safetensors, other formats of the weights are left out.
    """
    by_path = {each.path: each for each in files}
    if reference.file:
        parts = artifact.parts_of(reference.file)
        missing = [part for part in parts if part not in by_path]
        if missing:
            raise NeedsUser("NotFound", _no_such_file(reference, missing[0], by_path))
        return tuple(by_path[part] for part in parts)
    visible = [each for each in files if not any(part.startswith(".") for part in each.path.split("/"))]
    has_safetensors = any(
        each.path.endswith(".safetensors") and not each.path.startswith("original/") for each in visible
    )
    chosen = [
        each
        for each in visible
        if not (has_safetensors and any(fnmatch.fnmatchcase(each.path, one) for one in _OTHER_FORMATS))
    ]
    if not chosen:
        raise NeedsUser("NotFound", f"{reference.text}: the repository has no files")
    return tuple(sorted(chosen, key=lambda each: each.path))


def _no_such_file(reference: artifact.Reference, missing: str, known: dict[str, File]) -> str:
    alike = sorted(path for path in known if path.endswith(".gguf")) or sorted(known)
    more = f" and {len(alike) - _SHOWN} more" if len(alike) > _SHOWN else ""
    listed = f"; it has {', '.join(alike[:_SHOWN])}{more}" if alike else ""
    return f"{reference.text}: the repository has no file {missing}{listed}"


def check_space(what: str, needed: int, free: int, where: str) -> None:
    """Raises NeedsUser with figures when `needed` bytes cannot fit into `free`."""
    if needed > free:
        raise NeedsUser(
            "NoSpace",
            f"{what} needs at least {staging.amount(needed)} more in {where}, and {staging.amount(free)} are free:"
            " make room (llmctl artifacts prune removes what no revision uses)",
        )
