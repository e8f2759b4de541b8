"""Names that llmop makes and finds again in Slurm."""

import dataclasses
import re

INSTALLATION_LENGTH = 6
UID_LENGTH = 8
REPLICA_LENGTH = 57
SUFFIX_LENGTH = 5
_CANARY = "canary"
_PREFLIGHT = "preflight"
_STAGING = "staging"

_JOB_NAME = re.compile(
    r"llmop-(?P<installation>[a-z0-9]{6})-(?P<replica>[a-z0-9][a-z0-9-]*)-(?P<uid>[0-9a-f]{8})"
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class JobName:
    """The parts of one of our job names; `replica` is cut at 57 characters and `uid` holds the first 8 of 36."""

    installation: str
    replica: str
    uid: str


def replica_name(deployment: str, suffix: str) -> str:
    """The name of a new replica; `suffix` is five random characters."""
    return f"{_stem(deployment)}-{suffix}"


def is_replica_name(name: str, deployment: str) -> bool:
    """Whether a replica of `deployment` could be called so. Of deployments whose names begin with the same 51 characters
    all could."""
    stem, _, suffix = name.rpartition("-")
    return stem == _stem(deployment) and len(suffix) == SUFFIX_LENGTH


def _stem(deployment: str) -> str:
    return deployment[: REPLICA_LENGTH - SUFFIX_LENGTH - 1].rstrip("-")


def job_name(installation: str, replica: str, uid: str) -> str:
    """The Slurm job name of a replica: unique over the installation, never used twice.

    At most 80 bytes, far below the 1024 that slurmctld takes (`_test_strlen` in src/slurmctld/job_mgr.c) and the 255 that
    the accounting database keeps.
    """
    return f"llmop-{installation}-{replica[:REPLICA_LENGTH].rstrip('-')}-{uid[:UID_LENGTH]}"


def canary_name(installation: str, uid: str) -> str:
    """The Slurm job name of a canary. No replica's name is that short: it would have a random suffix."""
    return job_name(installation, _CANARY, uid)


def preflight_name(installation: str, uid: str) -> str:
    """The Slurm job name of a preflight's look at a node."""
    return job_name(installation, _PREFLIGHT, uid)


def staging_name(installation: str, uid: str) -> str:
    """The Slurm job name of a stager."""
    return job_name(installation, _STAGING, uid)


def is_preflight(name: str, installation: str) -> bool:
    """Whether `name` is that of a preflight of this installation."""
    return _is(_PREFLIGHT, name, installation)


def is_canary(name: str, installation: str) -> bool:
    """Whether `name` is that of a canary of this installation."""
    return _is(_CANARY, name, installation)


def is_staging(name: str, installation: str) -> bool:
    """Whether `name` is that of a stager of this installation."""
    return _is(_STAGING, name, installation)


def _is(what: str, name: str, installation: str) -> bool:
    parts = parse_job_name(name)
    return parts is not None and parts.installation == installation and parts.replica == what


def parse_job_name(name: str) -> JobName | None:
    """The parts of `name`, or None when no llmop made it."""
    match = _JOB_NAME.fullmatch(name)
    if match is None:
        return None
    return JobName(installation=match["installation"], replica=match["replica"], uid=match["uid"])
