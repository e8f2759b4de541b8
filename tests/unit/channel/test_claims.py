"""Who is the replica: the desk records at most one job, whatever order the claims come in."""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.channel.desk_rig import INSTALLATION, Rig, YieldingStore, token_of

from llmop.channel import desk
from llmop.domain import errors
from llmop.domain.replica import SubmissionState
from llmop.store import interface

RUN = ("run", False)
RUN_AND_TAKE_THE_LINK = ("run", True)
SUPERSEDED = ("superseded", False)
SUBMITTED = {"state": SubmissionState.SUBMITTED, "job_id": "5"}
CLAIMED = {**SUBMITTED, "claimed_restart": 0}


@pytest.mark.parametrize(
    ("ledger", "claim", "expected"),
    [
        pytest.param({}, {}, RUN, id="nobody knew the job yet"),
        pytest.param({"state": SubmissionState.SUBMITTING}, {}, RUN, id="sbatch has not answered yet"),
        pytest.param(SUBMITTED, {}, RUN, id="its own job"),
        pytest.param(CLAIMED, {}, RUN, id="its own job asks again"),
        pytest.param(CLAIMED, {"restart_count": 1}, RUN, id="its own job, requeued"),
        pytest.param(
            CLAIMED,
            {"restart_count": 1, "holder": ("5", 0)},
            RUN_AND_TAKE_THE_LINK,
            id="its own job, requeued, finds the link of its earlier start",
        ),
        pytest.param(
            {**CLAIMED, "claimed_restart": 1},
            {"restart_count": 0, "holder": ("5", 1)},
            SUPERSEDED,
            id="an earlier start that finds the link of a later one",
        ),
        pytest.param(
            CLAIMED, {"job_id": "6", "holder": ("5", 0)}, SUPERSEDED, id="a twin of the job that claimed"
        ),
        pytest.param(CLAIMED, {"job_id": "6"}, SUPERSEDED, id="a twin that lies about the link"),
        pytest.param(
            SUBMITTED, {"job_id": "6"}, RUN, id="a twin with the link wins over a job without a claim"
        ),
        pytest.param(SUBMITTED, {"holder": ("6", 0)}, SUPERSEDED, id="the link is that of a twin that lives"),
        pytest.param(
            SUBMITTED, {"holder": ("9", 0)}, RUN_AND_TAKE_THE_LINK, id="the link's holder has ended"
        ),
        pytest.param({}, {"holder": ("9", 0)}, RUN_AND_TAKE_THE_LINK, id="so it has where nobody knew a job"),
        pytest.param(
            CLAIMED,
            {"job_id": "6", "holder": ("9", 0)},
            SUPERSEDED,
            id="an ended holder does not help a twin",
        ),
        pytest.param({**CLAIMED, "state": SubmissionState.ENDED}, {}, SUPERSEDED, id="the job is over"),
        pytest.param({"state": SubmissionState.REJECTED}, {}, SUPERSEDED, id="sbatch said no"),
    ],
)
async def test_the_claim_table(
    rig: Rig, ledger: dict[str, Any], claim: dict[str, Any], expected: tuple[str, bool]
) -> None:
    await rig.add(**ledger)
    rig.over.add("9")
    assert expected == await rig.claim(**claim)


async def test_a_claim_is_recorded_and_settles_an_unknown_submission(rig: Rig) -> None:
    await rig.add(message="sbatch: error: Socket timed out", retry_at=rig.clock.now() + 60)
    await rig.claim("5", restart_count=2)
    recorded = (await rig.ledger()).submission
    assert (SubmissionState.SUBMITTED, "5", 2) == (
        recorded.state,
        recorded.job_id,
        recorded.claimed_restart,
    )
    assert (rig.clock.now(), "", None) == (recorded.resolved_at, recorded.message, recorded.retry_at)
    assert ["chat-r1"] == rig.heard


async def test_a_claim_that_says_nothing_new_wakes_nobody(rig: Rig) -> None:
    await rig.add(**CLAIMED)
    await rig.claim()
    await rig.claim("6", holder=("5", 0))
    assert [] == rig.heard


async def test_a_late_claim_on_a_deleted_replica_is_refused(rig: Rig) -> None:
    await rig.add()
    await rig.bury()
    assert SUPERSEDED == await rig.claim()
    assert (await rig.ledger()).submission.job_id is None


async def test_a_job_that_lands_when_its_replica_is_not_wanted_any_more_starts_no_engine(rig: Rig) -> None:
    await rig.add()
    await rig.drain()
    assert SUPERSEDED == await rig.claim()
    assert (await rig.ledger()).submission.job_id is None


@pytest.mark.parametrize("token", ["", "wrong", token_of(1)[:-1], token_of(1) + " ", token_of(2), "tökén"])
async def test_another_token_is_refused(rig: Rig, token: str) -> None:
    await rig.add(1)
    await rig.add(2)
    with pytest.raises(desk.Refused, match="wrong token") as refused:
        await rig.claim(token=token)
    assert 401 == refused.value.status
    with pytest.raises(desk.Refused):
        await rig.desk.heartbeat(rig.beat(), token)


async def test_a_replica_that_never_was_is_refused_like_a_wrong_token(rig: Rig) -> None:
    with pytest.raises(desk.Refused, match="no such replica, or a wrong token") as refused:
        await rig.claim(number=7)
    assert 401 == refused.value.status


async def test_a_token_does_not_speak_for_another_job_name(rig: Rig) -> None:
    await rig.add()
    with pytest.raises(desk.Refused) as refused:
        await rig.claim(job_name="llmop-k3v9qd-chat-r2-00000002")
    assert 403 == refused.value.status
    assert (await rig.ledger()).submission.job_id is None


@pytest.mark.parametrize("ledger", [{}, SUBMITTED], ids=["unknown", "submitted as another job"])
async def test_of_eight_jobs_that_claim_at_once_one_runs(rig: Rig, ledger: dict[str, Any]) -> None:
    """All say that they hold the link, which only one can: the record is the last fence."""
    await rig.add(**ledger)
    jobs = [str(number) for number in range(10, 18)]
    verdicts = await asyncio.gather(*(rig.claim(job) for job in jobs))
    winners = [job for job, verdict in zip(jobs, verdicts, strict=True) if verdict == RUN]
    assert [(await rig.ledger()).submission.job_id] == winners
    assert {RUN, SUPERSEDED} == set(verdicts)
    # Asking once more changes no answer.
    assert verdicts == [await rig.claim(job) for job in jobs]


async def test_a_claim_and_the_answer_of_sbatch_race_to_one_job(rig: Rig) -> None:
    await rig.add()
    claimed, _ = await asyncio.gather(rig.claim("5"), rig.record(**SUBMITTED))
    assert RUN == claimed
    assert RUN == await rig.claim("5")
    assert SUPERSEDED == await rig.claim("6")


async def test_a_deposed_controller_records_no_claim(rig: Rig) -> None:
    await rig.add()
    await rig.store.take_over("another", 0.0)
    with pytest.raises(errors.Deposed):
        await rig.claim()
    assert (await rig.ledger()).submission.job_id is None


class RestlessStore(YieldingStore):
    """Whenever the ledger was read, another job id is written into it."""

    def __init__(self, installation: str) -> None:
        super().__init__(installation)
        self._next = 100

    async def ledgers(self, replica_uids: Sequence[str] | None = None) -> tuple[interface.Ledger, ...]:
        found = await super().ledgers(replica_uids)
        self._next += 1
        write = interface.RecordSubmission(
            replica_uid=found[0].replica_uid,
            states=frozenset(SubmissionState),
            submission=dataclasses.replace(found[0].submission, job_id=str(self._next)),
        )
        await self.commit([write])
        return found


async def test_a_claim_that_never_finds_the_record_at_rest_is_told_to_ask_again() -> None:
    """Nobody is told to be superseded unless that is known."""
    rig = Rig(RestlessStore(INSTALLATION))
    await rig.start()
    await rig.add()
    with pytest.raises(desk.Refused, match="ask again") as refused:
        await rig.claim()
    assert 503 == refused.value.status
