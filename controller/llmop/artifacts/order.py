"""What the controller and a stager say to each other: an order as one JSON argument, then one JSON object per line as answer.

Orders hold no secrets, only the paths of files that do: everybody on the machine can read the arguments of a process.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from llmop.domain import staging
from llmop.domain.errors import LlmopError, NeedsUser, Unavailable

DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Resolve `reference` (digest "") or stage what it was pinned to. Paths are absolute; `tmp_dir` "" = below the shared directory."""

    reference: str
    digest: str = ""
    shared_dir: str
    endpoint: str = DEFAULT_ENDPOINT
    insecure: tuple[str, ...] = ()
    tmp_dir: str = ""
    secret_files: tuple[str, ...] = ()

    def dump(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def load(text: str) -> Order:
    """What `Order.dump` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    data = json.loads(text)
    return Order(**{**data, "insecure": tuple(data["insecure"]), "secret_files": tuple(data["secret_files"])})


def progress_line(seen: staging.Progress) -> str:
    return json.dumps({"step": seen.step, "done": seen.done, "total": seen.total})


def result_line(digest: str) -> str:
    return json.dumps({"digest": digest})


def error_line(error: LlmopError) -> str:
    reason = error.reason if isinstance(error, NeedsUser) else ""
    return json.dumps({"error": str(error), "reason": reason})


def read_line(line: str) -> staging.Progress | str | None:
    """A progress, or the digest of a result; None for a line that is no answer. Raises NeedsUser or Unavailable for an error line."""
    try:
        data = json.loads(line)
    except ValueError:
        return None
    if not isinstance(data, Mapping):
        return None
    if "error" in data:
        raise (
            NeedsUser(str(data["reason"]), str(data["error"]))
            if data.get("reason")
            else Unavailable(str(data["error"]))
        )
    if "digest" in data:
        return str(data["digest"])
    return _progress(data)


def _progress(data: Mapping[str, Any]) -> staging.Progress | None:
    try:
        return staging.Progress(
            step=staging.Step(data["step"]), done=int(data["done"]), total=int(data["total"])
        )
    except (KeyError, TypeError, ValueError):
        return None
