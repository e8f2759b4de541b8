"""What a person can do about a reason: one table, the same words for the same problem.

The reasons are those of conditions, of ended replicas and of waiting jobs (docs/reference of Slurm: squeue(1), "JOB REASON CODES").
"""

from collections.abc import Mapping

# By the reason of a condition of a deployment or a cluster. `{name}` is the deployment, `{cluster}` its cluster.
OF_CONDITIONS: Mapping[str, str] = {
    "InvalidReference": "Apply what is missing, or correct the field that is named: llmctl get sr,rp,cl shows what there is.",
    "SpecRefused": "Correct the field that is named, and apply the manifest: its replicas stay until then. Deleting it is possible too.",
    "NameConflict": "Set another spec.model.name, or delete the deployment that holds the name.",
    "SubmissionRejected": "Correct what sbatch refuses, under spec.slurm or in the resource profile, and apply it.",
    "NeverRuns": "Ask for what the partition, the account and the QOS allow, under spec.slurm or in the resource profile, and apply it.",
    "SubmissionBudgetSpent": "Find out why no replica became ready (the last failure above), correct it and apply; "
    "a submission that becomes ready gives the budget back.",
    "SubmissionUnresolved": "Look at Slurm itself: sbatch answers without saying what came of it. llmctl describe cl {cluster} shows its state.",
    "SubmissionRefused": "Wait: Slurm takes no jobs now. If it stays so, ask the administrators of the cluster.",
    "DeploymentPaused": "Run llmctl rollout resume md/{name} when replicas may be replaced again.",
    "ProgressDeadlineExceeded": "Look at the log of the replica that starts, with llmctl logs -f md/{name}; "
    "go back with llmctl rollout undo md/{name}, or give it more time with spec.progressDeadline.",
    "ClusterUnreachable": "See whether squeue answers on the controller's machine; running replicas go on serving meanwhile.",
    "MassVanish": "See whether squeue shows your jobs on the controller's machine. "
    "Nothing is submitted or cancelled before Slurm shows them again, or says of each that it ended.",
    "JobPending": "Wait, or say in spec.staging of the Cluster where the job may run. llmctl describe cl {cluster} shows the partitions.",
    "NotLookedYet": "Wait some seconds; if it stays so, see llmctl describe cl {cluster}.",
}

# By the reason of a tribunal's Ready. `{name}` is the tribunal.
OF_VIRTUAL: Mapping[str, str] = {
    "SpecRefused": "Correct the field that is named, and apply the manifest. Deleting it is possible too.",
    "NameConflict": "Delete one of the two, or apply this one under another name.",
    "MemberIsVirtual": "Name models of deployments instead, and apply that.",
    "MemberMissing": "Apply a deployment that serves what is missing, or take it out of the manifest and apply that.",
}

# Objects that only follow from a manifest: they have no state of their own that could go wrong otherwise.
OF_REFUSAL = "Correct the field that is named, and apply the manifest. Deleting it is possible too, where nothing uses it."

OF_STORES = (
    "Ask a gateway (GET /v1/models): llmop.why of {name} says which vector store or embedding model is missing, and llmop.state is"
    " ready when nothing is."
)

OF_DELETION = "Wait: open requests may end first. llmctl describe md {name} shows what still runs."

# By how a replica ended. `{replica}` is its name, `{node}` where it ran.
OF_ENDS: Mapping[str, str] = {
    "EngineCrashed": "Read the engine's log: llmctl logs rep/{replica}.",
    "UnexpectedExit": "Read both logs: llmctl logs rep/{replica}, and with --source=job. An engine that serves does not end by itself.",
    "BadSpec": "Read the job's log: llmctl logs rep/{replica} --source=job. The agent could not read what the controller wrote for it.",
    "NodeUnusable": "Leave the node out with spec.slurm.exclude: [{node}], and tell the administrators.",
    "Storage": "Free space, or correct permissions, on the file system that the message names.",
    "Temporary": "Wait: it is tried again.",
    "MissingArtifact": "See that spec.model.uri and the image exist on the nodes, under the very paths that the message names.",
    "StartupTimeout": "Give it more time with spec.probes.startup.timeout, or find out from llmctl logs rep/{replica} what takes so long.",
    "OutOfMemory": "Ask for more with spec.resources.memory.",
    "LaunchFailed": "See that the node can write in the cluster's sharedDir.",
    "CancelledByOther": "Ask who cancelled the job; sacct -j {job} names the user where there is accounting.",
    "Preempted": "Nothing: it is replaced. A partition or QOS that is not preempted costs fewer restarts.",
    "NeverRuns": "Ask for what the partition, the account and the QOS allow, under spec.slurm or in the resource profile, and apply it.",
    "NodeFail": "Nothing: it is replaced on another node.",
    "WalltimeReached": "Nothing: it is replaced. A longer spec.slurm.timeLimit makes that rarer.",
    "SubmissionRejected": "Correct what sbatch refuses, under spec.slurm or in the resource profile, and apply it.",
    "Failed": "Read the job's log: llmctl logs rep/{replica} --source=job.",
    "Lost": "Nothing: it is replaced. If it happens often, see whether the cluster keeps accounting.",
}

# By what the end of a log says, in lower case: (any of these words, advice).
OF_LOGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("cuda out of memory", "outofmemoryerror", "hip out of memory", "cuda error: out of memory"),
        "The GPU is too small for the model and its cache: use more GPUs per replica, a shorter context, or a smaller model.",
    ),
    (("address already in use",), "A port was taken on the node: a new replica takes another one."),
    (
        ("no such file or directory", "filenotfounderror"),
        "A file is missing on the node: compare the path in the log with spec.model.uri and the args.",
    ),
    (("permission denied",), "The account of the job may not read or write what the log names."),
    (
        ("unrecognized argument", "unexpected argument", "invalid argument", "unknown argument"),
        "The engine does not know an argument: correct spec.args.",
    ),
    (
        ("401 client error", "403 client error", "gated repo"),
        "The engine tried to reach a hub, which refused it: give a local path as spec.model.uri.",
    ),
)

# By why Slurm lets a job wait: (how the reason begins, advice); the first that fits.
OF_WAITING: tuple[tuple[str, str], ...] = (
    (
        "PartitionTimeLimit",
        "Ask for less time with spec.slurm.timeLimit, or for another partition: sinfo -o '%P %l' shows the limits.",
    ),
    ("PartitionNodeLimit", "Ask for fewer nodes, or for another partition."),
    ("PartitionDown", "Use another partition, or wait until the administrators open this one."),
    ("PartitionInactive", "Use another partition, or wait until the administrators open this one."),
    ("JobHeldAdmin", "An administrator holds the job: ask them; nobody else can release it."),
    (
        "JobHeldUser",
        "Release the job with scontrol release {job}, or delete the replica: llmctl delete rep {replica}.",
    ),
    (
        "ReqNodeNotAvail",
        "A node that is asked for is down or reserved: see sinfo -R, and spec.slurm.nodelist.",
    ),
    (
        "QOS",
        "Wait until jobs of the QOS end, use another one with spec.slurm.qos, or wish for fewer replicas.",
    ),
    (
        "Assoc",
        "Wait until jobs of the account end, use another one with spec.slurm.account, or wish for fewer replicas.",
    ),
    ("Max", "Wait until jobs of the account end, or wish for fewer replicas."),
    (
        "Priority",
        "Wait; squeue --start -j {job} shows Slurm's estimate, and a shorter spec.slurm.timeLimit may start earlier.",
    ),
    (
        "Resources",
        "Wait; squeue --start -j {job} shows Slurm's estimate, and a shorter spec.slurm.timeLimit may start earlier.",
    ),
    ("Licenses", "Wait for a licence: scontrol show lic shows them."),
    ("Reservation", "Wait until the reservation begins: scontrol show res shows it."),
    ("BeginTime", "Wait until the begin time of the job."),
)

# By the phase of a replica that has not ended and does not serve as it should.
OF_PHASES: Mapping[str, str] = {
    "Starting": "Follow what it does: llmctl logs -f rep/{replica} --source=job.",
    "Loading": "Follow what it does: llmctl logs -f rep/{replica}.",
    "Suspect": "Wait: it is still routed, and replaced when it stays silent.",
    "Unreachable": "See whether the node {node} is up and reaches the controller; it is replaced when it stays silent.",
    "Suspended": "The job is suspended by Slurm: it serves again when Slurm resumes it.",
    "OrphanAlive": "Ask the administrators whether slurmctld lost its state; the engine still serves.",
    "Draining": "Wait: it lets its open requests end.",
    "Unknown": "See what squeue -j {job} says.",
}


def of_log(lines: tuple[str, ...]) -> list[str]:
    text = "\n".join(lines).lower()
    return [words for patterns, words in OF_LOGS if any(pattern in text for pattern in patterns)]


def of_waiting(reason: str) -> str:
    """ "" for a reason about which nobody can do anything that we know of."""
    return next((words for start, words in OF_WAITING if reason.startswith(start)), "")
