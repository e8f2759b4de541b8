"""A batch as a value: its states, and what is to be done next. Pure.

States, fields and words are those of OpenAI's batches (https://platform.openai.com/docs/api-reference/batch).
"""

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import Any


class Status(enum.StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


ENDED = frozenset({Status.FAILED, Status.COMPLETED, Status.EXPIRED, Status.CANCELLED})
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
LONGEST_WINDOW_S = 30 * 86_400.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Why a batch failed. `line` counts from 1; None where it is about the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """`number` is the order of creation. `owner` is the hash of the key it was made with. `moments` says when it came into each state
    (epoch seconds). `completed` and `failed` are the rows that are recorded. `ending` is the state it is being brought to, with
    `output_file` and `error_file` as the names of the files that are made then.
    """

    number: int
    id: str
    owner: str
    endpoint: str
    input_file: str
    window: str
    created_at: float
    expires_at: float
    status: Status = Status.VALIDATING
    ending: Status | None = None
    output_file: str = ""
    error_file: str = ""
    total: int = 0
    completed: int = 0
    failed: int = 0
    moments: Mapping[str, float] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    keep_s: float | None = None  # how long its output files are kept, in seconds; None = as long as the batch

    @property
    def is_validated(self) -> bool:
        return Status.IN_PROGRESS in self.moments


class Step(enum.Enum):
    VALIDATE = enum.auto()
    EXECUTE = enum.auto()
    EXPIRE = enum.auto()  # begin to end it: its time is over
    FINISH = enum.auto()  # begin to end it: every row is recorded
    WRITE = enum.auto()  # write its files, and say that it has ended
    NOTHING = enum.auto()


def next_step(batch: Batch, now: float) -> Step:
    if batch.status is Status.VALIDATING:
        return Step.VALIDATE
    if batch.status is Status.IN_PROGRESS:
        if batch.completed + batch.failed >= batch.total:
            return Step.FINISH
        return Step.EXPIRE if now >= batch.expires_at else Step.EXECUTE
    return Step.NOTHING if batch.status in ENDED else Step.WRITE


def begin(batch: Batch, total: int, now: float) -> Batch:
    """Its file was read and is good."""
    return dataclasses.replace(_moved(batch, Status.IN_PROGRESS, now), total=total)


def reject(batch: Batch, problems: tuple[Problem, ...], now: float) -> Batch:
    """Its file is not good: nothing of it was run."""
    return dataclasses.replace(_moved(batch, Status.FAILED, now), problems=problems)


def begin_end(
    batch: Batch, ending: Status, files: tuple[str, str], now: float, problem: Problem | None = None
) -> Batch:
    """From here on no result is recorded. `files` are the names of its output file and its error file."""
    status = Status.CANCELLING if ending is Status.CANCELLED else Status.FINALIZING
    return dataclasses.replace(
        _moved(batch, status, now),
        ending=ending,
        output_file=files[0],
        error_file=files[1],
        problems=(problem,) if problem is not None else (),
    )


def end(batch: Batch, completed: int, failed: int, now: float) -> Batch:
    """Its files are there; `completed` and `failed` are the lines in them. A file without lines is none."""
    assert batch.ending is not None
    return dataclasses.replace(
        _moved(batch, batch.ending, now),
        completed=completed,
        failed=failed,
        output_file=batch.output_file if completed else "",
        error_file=batch.error_file if failed else "",
    )


def _moved(batch: Batch, status: Status, now: float) -> Batch:
    return dataclasses.replace(batch, status=status, moments={**batch.moments, status.value: now})


_WINDOW = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def window_s(text: str) -> float | None:
    """Seconds of a completion window like "24h", "90m" or "7d"; None for what is none, or is over 30 days."""
    found = _WINDOW.fullmatch(text)
    if found is None:
        return None
    seconds = float(int(found[1]) * _UNITS[found[2]])
    return seconds if seconds <= LONGEST_WINDOW_S else None


def describe(batch: Batch, waiting: str = "") -> dict[str, Any]:
    """OpenAI's batch object. `waiting` says what holds the rows up at the moment, which is a field of our own."""
    times = {f"{status.value}_at": _whole(batch.moments.get(status)) for status in Status}
    del times["validating_at"]
    has_ended = batch.status in ENDED
    shown = {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": _problems(batch.problems),
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": batch.status.value,
        "output_file_id": (batch.output_file or None) if has_ended else None,
        "error_file_id": (batch.error_file or None) if has_ended else None,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.expires_at),
        **times,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": dict(batch.metadata) or None,
    }
    return shown | ({"llmop": {"waiting": waiting}} if waiting and not has_ended else {})


def _whole(moment: float | None) -> int | None:
    return None if moment is None else int(moment)


def _problems(problems: tuple[Problem, ...]) -> dict[str, Any] | None:
    if not problems:
        return None
    return {"object": "list", "data": [dataclasses.asdict(problem) for problem in problems]}
