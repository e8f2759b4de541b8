"""Slurm's words, and what they mean to us: ordered tables, first match wins, the last row matches everything.

Every lookup returns the row, so that a caller can count which rows ever matched (`ALL_ROWS` names all of them).
The words come from slurm's job_state_string() (src/common/slurm_protocol_defs.c), job_reason_string() and the texts that the
scheduler writes itself (node_scheduler.c, acct_policy.c), and slurm_errno.c; releases 22.05 to 26.05.
"""

import dataclasses
import functools

from llmop.domain.job import JobState, PendingClass, Refused, RejectClass, Rejected, SubmitUnknown


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StateRow:
    """The state of jobs whose word is `word`, or begins with it where `prefix` is set."""

    id: str
    word: str
    state: JobState
    prefix: bool = False

    def matches(self, text: str) -> bool:
        return text.startswith(self.word) if self.prefix else text == self.word


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PendingRow:
    """The class of a waiting job whose reason begins with `start`; with `contains`, which also has that text in it.

    `sentence` says it in words for people.
    """

    id: str
    start: str
    pending_class: PendingClass
    sentence: str
    contains: str = ""
    exact: bool = False

    def matches(self, text: str) -> bool:
        if self.exact:
            return text == self.start
        return text.startswith(self.start) and self.contains in text


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SubmitRow:
    """What a failed sbatch whose error output has `text` in it (any case) means.

    A RejectClass: final. `refused`: no job was made, later it may work. Neither: nobody knows.
    """

    id: str
    text: str
    reject_class: RejectClass | None = None
    refused: bool = False

    def matches(self, lowered: str) -> bool:
        return self.text.lower() in lowered


def _states(*rows: tuple[str, JobState]) -> tuple[StateRow, ...]:
    return tuple(StateRow(id=f"state/{word}", word=word, state=state) for word, state in rows)


STATE_ROWS: tuple[StateRow, ...] = (
    *_states(
        ("RUNNING", JobState.RUNNING),
        ("PENDING", JobState.PENDING),
        ("COMPLETED", JobState.COMPLETED),
        ("COMPLETING", JobState.COMPLETING),
        ("FAILED", JobState.FAILED),
        ("TIMEOUT", JobState.TIMEOUT),
        ("CANCELLED", JobState.CANCELLED),
    ),
    StateRow(id="state/CANCELLED by", word="CANCELLED by ", state=JobState.CANCELLED, prefix=True),  # sacct
    *_states(
        ("CONFIGURING", JobState.CONFIGURING),
        ("POWER_UP_NODE", JobState.CONFIGURING),
        ("SUSPENDED", JobState.SUSPENDED),
        ("STOPPED", JobState.SUSPENDED),
        ("PREEMPTED", JobState.PREEMPTED),
        ("NODE_FAIL", JobState.NODE_FAIL),
        ("BOOT_FAIL", JobState.NODE_FAIL),
        ("OUT_OF_MEMORY", JobState.OUT_OF_MEMORY),
        ("DEADLINE", JobState.DEADLINE),
        ("REQUEUED", JobState.REQUEUED),
        ("REQUEUE_FED", JobState.REQUEUED),
        ("REQUEUE_HOLD", JobState.HELD),
        ("SPECIAL_EXIT", JobState.HELD),
        ("RESV_DEL_HOLD", JobState.HELD),
        ("SIGNALING", JobState.RUNNING),  # flags that hide RUNNING for a moment
        ("RESIZING", JobState.RUNNING),
        ("UPDATE_DB", JobState.RUNNING),
        ("STAGE_OUT", JobState.COMPLETING),
        ("REVOKED", JobState.CANCELLED),  # a sibling in a federation started elsewhere
        ("LAUNCH_FAILED", JobState.FAILED),
        ("RECONFIG_FAIL", JobState.FAILED),
    ),
    StateRow(id="state/*", word="", state=JobState.UNKNOWN, prefix=True),
)

_N, _Q, _I = PendingClass.NORMAL, PendingClass.QUOTA, PendingClass.INFRASTRUCTURE
_X, _H, _A = PendingClass.NEVER, PendingClass.HELD, PendingClass.HELD_BY_ADMIN

_PENDING: tuple[tuple[str, str, PendingClass, str], ...] = (
    # Texts that the scheduler writes in words come first.
    ("launch failed requeued held", "", _H, "The job could not be launched on its node and is held."),
    ("job requeued in held state", "", _H, "The job was requeued and is held."),
    (
        "user env retrieval failed requeued held",
        "",
        _H,
        "The user's environment could not be read on the node; the job is held.",
    ),
    (
        "launch failure limit exceeded requeued held",
        "",
        _H,
        "The job failed to launch too often and is held.",
    ),
    ("Job is at or exceeds ", "", _Q, "A limit of the account or QOS is reached."),
    (
        "Nodes required for job are DOWN, DRAINED or reserved",
        "",
        _N,
        "The nodes that fit are down, drained or reserved for jobs of higher priority.",
    ),
    # Slurm's own words; longer ones before those that they begin with.
    ("JobHeldAdmin", "", _A, "An administrator holds the job."),
    ("JobHeldUser", "", _H, "The job is held by its user's account."),
    ("JobHoldMaxRequeue", "", _H, "The job was requeued too often and is held."),
    (
        "ReqNodeNotAvail",
        "maintenance",
        _I,
        "The nodes are reserved for maintenance before the job could end.",
    ),
    ("ReqNodeNotAvail", "", _I, "The nodes that the job needs are not available now."),
    ("NodeDown", "", _I, "A node that the job needs is down."),
    ("PartitionDown", "", _I, "The partition is down."),
    ("PartitionInactive", "", _I, "The partition is inactive."),
    ("FrontEndDown", "", _I, "No front-end node is available."),
    ("PartitionTimeLimit", "", _X, "The time limit is longer than the partition allows."),
    ("PartitionNodeLimit", "", _X, "The partition does not allow this number of nodes."),
    ("PartitionConfig", "", _X, "The partition has no nodes that fit the request."),
    ("BadConstraints", "", _X, "No node can satisfy the constraints."),
    ("Constraints", "", _X, "No node can satisfy the constraints."),
    ("AssociationTimeLimit", "", _X, "The time limit is longer than the account allows."),
    ("QOSTimeLimit", "", _X, "The time limit is longer than the QOS allows."),
    ("AssocMaxWallDurationPerJobLimit", "", _X, "The time limit is longer than the account allows."),
    ("AssocMax", "PerJob", _X, "The job is larger than the account allows for one job."),
    ("AssocMax", "PerNode", _X, "The job wants more of one node than the account allows."),
    ("QOSMaxWallDurationPerJobLimit", "", _X, "The time limit is longer than the QOS allows."),
    ("QOSMax", "PerJob", _X, "The job is larger than the QOS allows for one job."),
    ("QOSMax", "PerNode", _X, "The job wants more of one node than the QOS allows."),
    ("QOSMin", "", _X, "The job is smaller than the QOS demands."),
    ("MaxMemPerLimit", "", _X, "The job wants more memory than the site allows."),
    ("InvalidAccount", "", _X, "The account is not valid."),
    ("InvalidQOS", "", _X, "The QOS is not valid."),
    ("AccountNotAllowed", "", _X, "The account may not use the partition."),
    ("QOSNotAllowed", "", _X, "The QOS may not be used by this account or in this partition."),
    ("ReservationDeleted", "", _X, "The reservation of the job was deleted."),
    ("ReservationInvalid", "", _X, "The reservation of the job is not valid."),
    ("DependencyNeverSatisfied", "", _X, "The job waits for something that will never happen."),
    ("DeadLine", "", _X, "The job cannot end before its deadline."),
    ("AssocGrp", "Minutes", _Q, "The account's compute budget is spent."),
    ("AssocGrp", "WallLimit", _Q, "The account's compute budget is spent."),
    ("AssocGrp", "", _Q, "The account uses as much as it may at the same time."),
    ("AssocMaxJobsLimit", "", _Q, "The account runs as many jobs as it may."),
    ("AssocMaxSubmit", "", _Q, "The account has submitted as many jobs as it may."),
    ("QOSGrp", "Minutes", _Q, "The compute budget of the QOS is spent."),
    ("QOSGrp", "WallLimit", _Q, "The compute budget of the QOS is spent."),
    ("QOSGrp", "", _Q, "All jobs of the QOS use as much as they may at the same time."),
    ("QOSUsageThreshold", "", _Q, "The usage is over the threshold of the QOS."),
    ("QOSMax", "", _Q, "This user or account uses as much of the QOS as allowed."),
    ("MaxJobsPerAccount", "", _Q, "The account runs as many jobs of this QOS as it may."),
    ("MaxSubmitJobsPerAccount", "", _Q, "The account has submitted as many jobs of this QOS as it may."),
    ("Max", "PerAccount", _Q, "The account uses as much as the QOS allows."),
    ("Max", "RunMinsPer", _Q, "The running jobs use the run-minutes that are allowed."),
    ("MaxPoweredUpNodes", "", _N, "Slurm has as many nodes powered up as it may."),
    ("Priority", "", _N, "Jobs of higher priority wait before it."),
    ("Resources", "", _N, "It waits for resources to become free."),
    ("Dependency", "", _N, "It waits for another job."),
    ("BeginTime", "", _N, "It waits for its begin time."),
    ("Licenses", "", _N, "It waits for a licence."),
    ("Reservation", "", _N, "It waits for its reservation to begin."),
    ("Prolog", "", _N, "The prolog runs."),
    ("Cleaning", "", _N, "Its earlier run is being cleaned up."),
    ("JobArrayTaskLimit", "", _N, "The job array runs as many tasks as it may."),
    ("SchedDefer", "", _N, "The scheduler looks at it later."),
    ("FedJobLock", "", _N, "The federation decides where it starts."),
    ("BurstBuffer", "", _N, "It waits for its burst buffer."),
)
_EXACT: tuple[str, ...] = ("", "None")


PENDING_ROWS: tuple[PendingRow, ...] = (
    *(
        PendingRow(
            id=f"pending/{word or '(empty)'}",
            start=word,
            exact=True,
            pending_class=_N,
            sentence="The scheduler has not looked at it yet.",
        )
        for word in _EXACT
    ),
    *(
        PendingRow(
            id=f"pending/{start.strip()}" + (f"+{contains}" if contains else ""),
            start=start,
            contains=contains,
            pending_class=pending_class,
            sentence=sentence,
        )
        for start, contains, pending_class, sentence in _PENDING
    ),
    PendingRow(
        id="pending/*",
        start="",
        pending_class=PendingClass.UNKNOWN,
        sentence="Slurm gives a reason that llmop does not know.",
    ),
)

_UNKNOWN_TEXTS = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted or received",
    "receive failure",
    "send failure",
    "Connection refused",
    "Connection reset",
    "Protocol authentication error",
    "Munge",
)
_REFUSED_TEXTS = (
    "Unable to create job record, try again",
    "Job violates accounting/QOS policy",
    "Required partition not available",
    "Partition in DOWN state",
    "System submissions disabled",
    "in standby mode",
    "I/O error writing script/environment to file",
    "Slurm temporarily unable to accept job",
    "Rate limit exceeded",
    "Job submit limit",
)
_REJECTED_TEXTS: tuple[tuple[str, RejectClass], ...] = (
    ("Invalid partition name specified", RejectClass.INVALID_PARTITION),
    ("invalid partition specified", RejectClass.INVALID_PARTITION),
    ("Invalid account or account/partition combination", RejectClass.INVALID_ACCOUNT),
    ("Invalid qos specification", RejectClass.INVALID_QOS),
    ("Invalid generic resource (gres) specification", RejectClass.INVALID_GRES),
    ("Requested time limit is invalid", RejectClass.INVALID_TIME_LIMIT),
    ("Invalid --time specification", RejectClass.INVALID_TIME_LIMIT),
    ("Invalid --time-min specification", RejectClass.INVALID_TIME_LIMIT),
    ("Invalid feature specification", RejectClass.INVALID_CONSTRAINT),
    ("Invalid wckey specification", RejectClass.INVALID_OPTION),
    ("Invalid license specification", RejectClass.INVALID_OPTION),
    ("Access denied to requested reservation", RejectClass.PERMISSION_DENIED),
    ("User's group not permitted to use this partition", RejectClass.PERMISSION_DENIED),
    ("Access/permission denied", RejectClass.PERMISSION_DENIED),
    ("Requested reservation is invalid", RejectClass.INVALID_OPTION),
    ("Invalid node name specified", RejectClass.INVALID_OPTION),
    ("Memory required by task is not available", RejectClass.UNSATISFIABLE),
    ("More processors requested than permitted", RejectClass.UNSATISFIABLE),
    ("Node count specification invalid", RejectClass.UNSATISFIABLE),
    ("Requested node configuration is not available", RejectClass.UNSATISFIABLE),
    ("Invalid job array specification", RejectClass.INVALID_OPTION),
    ("Pathname of a file, directory or other parameter too long", RejectClass.INVALID_OPTION),
    ("This does not look like a batch script", RejectClass.INVALID_OPTION),
    ("Batch script is empty", RejectClass.INVALID_OPTION),
    ("sbatch: unrecognized option", RejectClass.INVALID_OPTION),
    ("sbatch: invalid option", RejectClass.INVALID_OPTION),
    ("sbatch: option '", RejectClass.INVALID_OPTION),  # getopt: needs an argument, allows none, is ambiguous
    ("Invalid --", RejectClass.INVALID_OPTION),
)

SUBMIT_ROWS: tuple[SubmitRow, ...] = (
    # A doubt beats everything else that stands in the same output.
    *(SubmitRow(id=f"submit/unknown/{text}", text=text) for text in _UNKNOWN_TEXTS),
    *(SubmitRow(id=f"submit/refused/{text}", text=text, refused=True) for text in _REFUSED_TEXTS),
    *(
        SubmitRow(id=f"submit/rejected/{text}", text=text, reject_class=reject_class)
        for text, reject_class in _REJECTED_TEXTS
    ),
    SubmitRow(id="submit/unknown/*", text=""),
)

ALL_ROWS: tuple[str, ...] = (
    *(row.id for row in STATE_ROWS),
    *(row.id for row in PENDING_ROWS),
    *(row.id for row in SUBMIT_ROWS),
)


@functools.lru_cache(maxsize=1024)
def state_row(word: str) -> StateRow:
    """The row of a job state as squeue or sacct write it."""
    return next(row for row in STATE_ROWS if row.matches(word))


@functools.lru_cache(maxsize=1024)
def pending_row(reason: str) -> PendingRow:
    """The row of the reason of a waiting job (`squeue --Format=Reason`)."""
    return next(row for row in PENDING_ROWS if row.matches(reason))


def submit_row(error_output: str) -> SubmitRow:
    """The row of the error output of an sbatch that failed."""
    lowered = error_output.lower()
    return next(row for row in SUBMIT_ROWS if row.matches(lowered))


def submit_failure(error_output: str) -> Rejected | Refused | SubmitUnknown:
    """What an sbatch that failed with this error output means. A text that is in no table is a doubt, never a no."""
    row = submit_row(error_output)
    message = said(error_output) or "sbatch failed without a word"
    if row.reject_class is not None:
        return Rejected(reject_class=row.reject_class, message=message)
    if row.refused:
        return Refused(message=message)
    return SubmitUnknown(message=message)


def said(error_output: str) -> str:
    """Error output of a Slurm command as one line for people: without the command's prefixes, bounded."""
    lines = []
    for line in error_output.splitlines():
        for prefix in (
            "sbatch: ",
            "squeue: ",
            "sacct: ",
            "scancel: ",
            "scontrol: ",
            "allocation failure: ",
            "error: ",
            "fatal: ",
        ):
            line = line.strip().removeprefix(prefix)
        if line and line not in lines:
            lines.append(line)
    text = "; ".join(lines)
    return text if len(text) <= 500 else text[:499] + "…"
