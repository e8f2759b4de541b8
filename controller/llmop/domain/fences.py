"""Which of the submit protocol's fences hold at a site: what its plugins leave of a job's name, comment and dependency."""

import dataclasses
import enum
from collections.abc import Sequence

from llmop.domain import ids
from llmop.domain.job import ObservedJob


class Identity(enum.StrEnum):
    """What a job of ours is found again by."""

    NAME = "Name"
    COMMENT = "Comment"  # it holds what we would have called the job
    NOTHING = "Nothing"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Canary:
    """What a site made of a job that asked for a name, a comment, a dependency and a time limit.

    `dependency_kept` is None where it could not be seen, because the job was not held as it had asked and ran at once.
    `stored_name` and `stored_comment` are what stood there, cut. Valid for one version of Slurm and one generation of the Cluster.
    """

    seen_at: float
    version: str
    generation: int
    name_kept: bool
    comment_kept: bool
    dependency_kept: bool | None
    time_limit_kept: bool
    stored_name: str = ""
    stored_comment: str = ""
    stored_time_limit_s: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fences:
    """`singleton`: of several jobs of one name Slurm runs one at a time. Without it the claim is the only fence between twins."""

    identity: Identity = Identity.NAME
    singleton: bool = True

    @classmethod
    def of(cls, seen: Canary) -> "Fences":
        if seen.name_kept:
            return cls(identity=Identity.NAME, singleton=seen.dependency_kept is True)
        # Singleton counts jobs by name: with a name of the site's, all our jobs could wait for one another.
        identity = Identity.COMMENT if seen.comment_kept else Identity.NOTHING
        return cls(identity=identity, singleton=False)


STANDARD = Fences()  # what Slurm does where no plugin interferes


def identified(jobs: Sequence[ObservedJob], identity: Identity) -> tuple[ObservedJob, ...]:
    """The jobs under the names that we gave them; those whose comment holds none keep their own."""
    if identity is not Identity.COMMENT:
        return tuple(jobs)
    return tuple(
        dataclasses.replace(each, name=each.comment) if ids.parse_job_name(each.comment) else each
        for each in jobs
    )
