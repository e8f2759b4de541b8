"""What the Slurm commands print, as values. A text that does not look exactly as expected is no information: None or a problem.

The commands run with LC_ALL=C, TZ=UTC and SLURM_TIME_FORMAT=%s: times are epoch seconds, or a word where there is none.
"""

import functools
import operator
import re
from collections.abc import Callable, Mapping

from llmop.cluster.slurm.states import pending_row, state_row
from llmop.domain.job import JobState, ObservedJob, PendingClass

FIELD_END = "\x1f"
RECORD_END = "\x1e"

# Names of squeue -O that exist unchanged in 22.05 to 26.05. A field without a width but with a suffix is neither cut nor
# padded (squeue/opts.c, _parse_long_token).
SQUEUE_FIELDS = (
    *("JobID", "ArrayJobID", "ArrayTaskID", "Name", "State", "Reason", "Partition", "QOS", "Account"),
    *("BatchHost", "NodeList", "NumNodes", "SubmitTime", "EligibleTime", "StartTime", "EndTime", "TimeLimit"),
    *("PreemptTime", "RestartCnt", "exit_code", "PriorityLong", "WCKey", "Feature", "Dependency"),
    *("Reservation", "LastSchedEval", "SchedNodes", "tres-alloc", "Comment", "admin_comment"),
    "system_comment",
)
SQUEUE_FORMAT = ",".join(
    f"{name}:{RECORD_END if name == SQUEUE_FIELDS[-1] else FIELD_END}" for name in SQUEUE_FIELDS
)

# Comment is the only field with free text, and the last one: see `sacct`.
SACCT_FIELDS = (
    *("JobIDRaw", "JobName", "State", "ExitCode", "Reason", "Submit", "Start", "End", "TimelimitRaw"),
    *("Partition", "NodeList", "Comment"),
)

_needed = operator.itemgetter(
    *map(
        SQUEUE_FIELDS.index,
        (
            *("JobID", "Name", "State", "Reason", "Partition", "BatchHost", "NodeList", "SubmitTime"),
            *("StartTime", "EndTime", "TimeLimit", "PreemptTime", "RestartCnt", "exit_code"),
            *("Dependency", "Comment"),
        ),
    )
)

_ABSENT = frozenset({"", "(null)", "N/A", "n/a", "Unknown", "None", "NONE", "INVALID"})
_WAITING = frozenset({JobState.PENDING, JobState.HELD})
_JOB_ID = re.compile(r"[1-9][0-9]{0,18}")
_SBATCH_ID = re.compile(r"([1-9][0-9]{0,18})(?:;\S+)?")
_LIMIT = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")
_NO_VALUE = 0xFFFFFFFE  # slurm.h, NO_VAL


class Garbled(Exception):
    """The text is not what the command prints; `str()` says why. Carries no information about jobs."""


def squeue(text: str) -> tuple[ObservedJob, ...]:
    """The jobs in the output of `squeue --noheader --Format=<SQUEUE_FORMAT>`, which ended with return code 0.

    Raises Garbled unless every record is complete: text around the records may hide that some are missing.
    """
    if not text:
        return ()
    records = text.split(RECORD_END + "\n")
    rest = records.pop()
    if rest:
        raise Garbled(f"squeue printed something that is no complete job record at the end: {_quoted(rest)}")
    jobs = []
    wanted = len(SQUEUE_FIELDS)
    for record in records:
        fields = record.split(FIELD_END)
        if len(fields) != wanted:
            raise Garbled(
                f"squeue printed a record of {len(fields)} fields in place of {wanted}: {_quoted(record)}"
            )
        jobs.append(_squeue_job(fields))
    return tuple(jobs)


def _squeue_job(fields: list[str]) -> ObservedJob:
    (
        job_id,
        name,
        state_text,
        reason,
        partition,
        node,
        node_list,
        submitted,
        started,
        ends,
        limit,
        preempted,
        restarts,
        exit_text,
        dependency,
        comment,
    ) = _needed(fields)
    if _JOB_ID.fullmatch(job_id) is None:
        raise Garbled(f"squeue printed a record that does not begin with a job id: {_quoted(job_id)}")
    state = state_row(state_text).state
    ended = state.is_terminal or state is JobState.COMPLETING
    code, signal = exit_status(exit_text) if ended else (None, None)
    pending, explanation = _pending(reason) if state in _WAITING else (None, "")
    return ObservedJob(
        job_id=job_id,
        name=name,
        state=state,
        state_text=state_text,
        reason="" if reason in _ABSENT else reason,
        pending=pending,
        explanation=explanation,
        partition=partition,
        node="" if node in _ABSENT else node,
        node_list="" if node_list in _ABSENT else node_list,
        submitted_at=_epoch(submitted),
        started_at=_epoch(started),
        ends_at=_epoch(ends),
        time_limit_s=time_limit(limit),
        preempted_at=_epoch(preempted),
        restart_count=int(restarts) if restarts.isdecimal() else 0,
        exit_code=code,
        signal=signal,
        comment="" if comment in _ABSENT else comment,
        dependency="" if dependency in _ABSENT else dependency,
    )


def _pending(reason: str) -> tuple[PendingClass, str]:
    row = pending_row(reason)
    if row.pending_class is PendingClass.UNKNOWN:
        return row.pending_class, f"{row.sentence.removesuffix('.')}: {reason}"
    return row.pending_class, row.sentence


def sacct(text: str) -> tuple[ObservedJob, ...]:
    """The jobs in the output of `sacct -X -P -n -D --delimiter=<FIELD_END> -o <SACCT_FIELDS>`.

    With -D a requeued job has a record for each start, in order; the later ones get a higher `restart_count`.
    Raises Garbled when a record is incomplete.
    """
    if not text:
        return ()
    # Records end with a newline, but a comment may hold newlines too: the last line of what stands between two
    # delimiters belongs to the next record.
    pieces = text.removesuffix("\n").split(FIELD_END)
    inner = len(SACCT_FIELDS) - 1
    if len(pieces) % inner != 1 or len(pieces) == 1:
        raise Garbled(f"sacct printed an incomplete record: {_quoted(text)}")
    jobs = []
    seen: dict[str, int] = {}
    first = pieces[0]
    for start in range(1, len(pieces), inner):
        *middle, last = pieces[start : start + inner]
        if start + inner < len(pieces):
            comment, newline, following = last.rpartition("\n")
            if not newline:
                raise Garbled(f"sacct printed a record that does not end: {_quoted(last)}")
        else:
            comment, following = last, ""
        restarts = seen.get(first, -1) + 1
        seen[first] = restarts
        jobs.append(_sacct_job(first, middle, comment, restarts))
        first = following
    return tuple(jobs)


def _sacct_job(job_id: str, fields: list[str], comment: str, restarts: int) -> ObservedJob:
    name, state_text, exit_text, reason, submitted, started, ended, limit, partition, node_list = fields
    if _JOB_ID.fullmatch(job_id) is None:
        raise Garbled(f"sacct printed a record that does not begin with a job id: {_quoted(job_id)}")
    state = state_row(state_text).state
    code, signal = exit_status(exit_text) if state.is_terminal else (None, None)
    return ObservedJob(
        job_id=job_id,
        name=name,
        state=state,
        state_text=state_text,
        reason="" if reason in _ABSENT else reason,
        partition=partition,
        node_list="" if node_list in _ABSENT or node_list == "None assigned" else node_list,
        submitted_at=_epoch(submitted),
        started_at=_epoch(started),
        ends_at=_epoch(ended),
        time_limit_s=int(limit) * 60 if limit.isdecimal() else None,
        restart_count=restarts,
        exit_code=code,
        signal=signal,
        comment="" if comment in _ABSENT else comment,
    )


def sbatch(text: str) -> str | None:
    """The job id in the output of `sbatch --parsable`: its last line is `<id>` or `<id>;<cluster>`. None: there is none."""
    lines = text.strip().splitlines()
    found = _SBATCH_ID.fullmatch(lines[-1].strip()) if lines else None
    return found[1] if found else None


@functools.lru_cache(maxsize=4096)
def time_limit(text: str) -> int | None:
    """Seconds of `[D-]HH:MM:SS` or `MM:SS`; None for UNLIMITED, NOT_SET, INVALID and whatever else."""
    found = _LIMIT.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@functools.lru_cache(maxsize=4096)
def exit_status(text: str) -> tuple[int | None, int | None]:
    """Exit code and signal of `code:signal` (sacct, and squeue from 23.02 on) or of a raw wait status (squeue of 22.05).

    The two forms cannot be mistaken for one another, so the release need not be known.
    """
    code, colon, signal = text.partition(":")
    if not code.isdecimal() or (colon and not signal.isdecimal()):
        return None, None
    if colon:
        return int(code), int(signal)
    status = int(code)
    if status >= _NO_VALUE:
        return None, None
    return status >> 8 & 0xFF, status & 0x7F


def config(text: str) -> Mapping[str, str]:
    """The settings in the output of `scontrol show config`: lines `Name = value`; `(null)` becomes ""."""
    settings = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() and " " not in name.strip():
            settings[name.strip()] = "" if value.strip() == "(null)" else value.strip()
    return settings


def test_only(text: str) -> str:
    """The sentence of `sbatch --test-only` without the job number, which means nothing; "" when it says something else.

    22.05 and later: `sbatch: Job 7 to start at 1795832637 using 1 processors on nodes n1 in partition gpu`.
    """
    found = re.search(r"Job [0-9]+ to start at \S+ using .* on nodes (\S+) in partition (\S+)", text)
    return f"would run on {found[1]} of partition {found[2]}" if found else ""


def config_time(text: str) -> float | None:
    """slurmctld's time of the answer: `Configuration data as of <epoch seconds>`, the first line of `scontrol show config`."""
    found = re.search(r"^Configuration data as of ([0-9]{1,12})$", text, re.MULTILINE)
    return float(found[1]) if found else None


def seconds(text: str) -> int | None:
    """The number in a setting like `300 sec`."""
    number = text.partition(" ")[0]
    return int(number) if number.isdecimal() else None


def partitions(text: str) -> tuple[Mapping[str, str], ...]:
    """One mapping for each line of `scontrol show partition -o`, which holds `Name=value` words."""
    found = []
    for line in text.splitlines():
        pairs = (word.partition("=") for word in line.split())
        values = {name: value for name, equals, value in pairs if equals}
        if "PartitionName" in values:
            found.append(values)
    return tuple(found)


def _epoch_of(text: str) -> float | None:
    return float(text) if text.isdecimal() and text != "0" else None


_epoch: Callable[[str], float | None] = functools.lru_cache(maxsize=16384)(_epoch_of)


def _quoted(text: str) -> str:
    shown = text if len(text) <= 80 else text[:80] + "…"
    return repr(shown)
