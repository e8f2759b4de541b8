"""First contact with a cluster: a canary goes before the first replica, and what it finds changes how replicas are submitted."""

import dataclasses
from typing import Any

import pytest
from tests.unit.reconciler.reconciler_rig import Rig

from llmop.domain import ids, resources
from llmop.domain.job import JobRequest
from llmop.planner import canary
from llmop.testing import builders
from llmop.testing.virtual_slurm.faults import SubmitFault
from llmop.testing.virtual_slurm.jobs import Phase


def renames(request: JobRequest) -> JobRequest:
    return dataclasses.replace(request, name=f"u1001_{request.name[:8]}")


def forgets(request: JobRequest) -> JobRequest:
    return dataclasses.replace(request, name="job", comment="site")


def strips(request: JobRequest) -> JobRequest:
    return dataclasses.replace(request, singleton=False)


async def rounds(rig: Rig, count: int = 3) -> None:
    for _ in range(count):
        await rig.poll()
        await rig.settle()
        rig.clock.advance(5)


async def cluster_status(rig: Rig) -> Any:
    return (await rig.store.get(resources.CLUSTER, "", builders.CLUSTER)).status


async def fenced(rig: Rig) -> tuple[str, str]:
    found = await rig.condition(resources.CLUSTER, builders.CLUSTER, "", "Fenced")
    return found["status"], found["reason"]


def canaries(rig: Rig) -> list[Phase]:
    return [
        each.phase
        for each in rig.slurm.jobs()
        if ids.is_canary(each.name, builders.INSTALLATION)
        or ids.is_canary(each.comment, builders.INSTALLATION)
    ]


def replicas_jobs(rig: Rig) -> list[JobRequest]:
    return [each.request for each in rig.slurm.jobs() if not each.request.held]


async def test_at_an_ordinary_site_one_canary_goes_and_nothing_else_changes() -> None:
    rig = Rig()
    await rig.start(replicas=1)
    await rounds(rig)
    assert canaries(rig) == [Phase.ENDED]
    (request,) = replicas_jobs(rig)
    assert (request.singleton, request.comment) == (True, "")
    assert await fenced(rig) == ("True", "Proven")
    status = await cluster_status(rig)
    assert status["canary"]["nameKept"] is True
    assert {row["name"]: row["works"] for row in status["fences"]}["Singleton"] == "True"


async def test_where_names_are_changed_jobs_are_found_by_their_comment() -> None:
    rig = Rig(plugin=renames)
    await rig.start(replicas=1)
    await rounds(rig, 4)
    (request,) = replicas_jobs(rig)
    (shown,) = await rig.replicas()
    assert ids.parse_job_name(request.comment) is not None
    assert not request.singleton
    assert request.comment.split("-")[2] == shown.name.split("-")[0]
    assert shown.status["phase"] == "Starting"  # the running job was found
    assert await fenced(rig) == ("True", "WithSubstitutes")
    assert rig.slurm.calls["submit"] == 1


async def test_where_nothing_survives_nothing_is_submitted_and_people_are_told() -> None:
    rig = Rig(plugin=forgets)
    await rig.start(replicas=2)
    await rounds(rig, 6)
    assert replicas_jobs(rig) == []
    assert await fenced(rig) == ("False", "SiteRewritesJobs")
    stalled = await rig.condition(resources.MODEL_DEPLOYMENT, builders.DEPLOYMENT, "default", "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "SiteRewritesJobs")
    assert "Ask your site" in stalled["message"]
    assert canaries(rig) == []  # it cannot be told from other jobs ...
    assert [each.phase for each in rig.slurm.jobs()] == [Phase.ENDED]  # ... and was cancelled by its id


async def test_where_dependencies_are_stripped_the_claim_stands_in() -> None:
    rig = Rig(plugin=strips)
    await rig.start(replicas=1)
    await rounds(rig)
    rows = {row["name"]: row for row in (await cluster_status(rig))["fences"]}
    assert (rows["Singleton"]["works"], rows["Singleton"]["found"]) == ("False", "was taken away")
    assert rows["Singleton"]["substitute"].startswith("the claim")
    assert [request.singleton for request in replicas_jobs(rig)] == [False]


@pytest.mark.parametrize(
    ("text", "times"),
    [("Socket timed out on send/recv operation", 2), ("Job violates accounting/QOS policy", 1)],
)
async def test_nothing_is_submitted_before_the_canary_is_back(text: str, times: int) -> None:
    rig = Rig()
    await rig.start(replicas=1)
    refusal = f"sbatch: error: Batch job submission failed: {text}"
    rig.slurm.fail_submits(SubmitFault.SAYS, times=times, text=refusal)
    await rounds(rig, 2)
    assert rig.slurm.calls["submit"] == 0
    capacity = await rig.condition(
        resources.MODEL_DEPLOYMENT, builders.DEPLOYMENT, "default", "CapacityAvailable"
    )
    assert (capacity["status"], capacity["reason"]) == ("Unknown", "CanaryNotBack")
    assert text in capacity["message"]
    rig.clock.advance(canary.RETRY_S)
    await rounds(rig)
    assert rig.slurm.calls["submit"] == 1
    assert await fenced(rig) == ("True", "Proven")


async def test_a_canary_that_is_rejected_with_every_profile_holds_up_nobody() -> None:
    """A deployment may name the account that the site wants."""
    rig = Rig()
    await rig.start(replicas=1)
    rig.slurm.fail_submits(
        SubmitFault.SAYS,
        times=2,
        text="sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
    )
    await rounds(rig)
    assert await fenced(rig) == ("Unknown", "CanaryRejected")
    assert rig.slurm.calls["submit"] == 1


async def test_the_canary_of_a_controller_that_died_is_cancelled() -> None:
    rig = Rig()
    await rig.start()
    left = rig.slurm.submit_by_hand(canary.request(builders.INSTALLATION, "ffffffff", "/shared", ()))
    stranger = rig.slurm.submit_by_hand(canary.request("zzzzzz", "ffffffff", "/shared", ()))
    await rounds(rig)
    assert (left.phase, stranger.phase) == (Phase.ENDED, Phase.PENDING)


async def test_what_is_known_is_not_asked_again_by_the_next_controller() -> None:
    rig = Rig(plugin=renames)
    await rig.start(replicas=1)
    await rounds(rig)
    assert rig.slurm.calls["submit held"] == 1
    await rig.restart()
    await rig.poll()
    (shown,) = await rig.replicas()
    assert shown.name.split("-")[0] in {name.split("-")[2] for name in rig.watch.view().jobs}
    await rounds(rig)
    assert rig.slurm.calls["submit held"] == 1
    assert rig.watch.canary.holding.identity == "Comment"
    assert rig.slurm.calls["submit"] == 1  # its job was found, not made again


async def test_a_refusal_in_words_of_the_site_is_shown_and_other_options_are_tried() -> None:
    rig = Rig()
    await rig.start(replicas=1)
    said = (
        "sbatch: error: Please name a project.\nsbatch: error: Batch job submission failed: Unspecified error"
    )
    rig.slurm.fail_submits(SubmitFault.SAYS, text=said)
    await rounds(rig)
    assert await fenced(rig) == ("True", "Proven")
    assert rig.slurm.calls["submit held"] == 2
