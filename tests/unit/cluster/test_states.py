"""The tables of Slurm's words: every word of the releases has its row, and only known texts are final."""

import json
from pathlib import Path

import pytest

from llmop.cluster.slurm import states
from llmop.domain.job import JobState, PendingClass, Refused, RejectClass, Rejected, SubmitUnknown

RECORDED = Path(__file__).resolve().parents[2] / "data" / "slurm" / "22.05"


def test_every_row_has_its_own_name() -> None:
    assert sorted(set(states.ALL_ROWS)) == sorted(states.ALL_ROWS)


@pytest.mark.parametrize("row", states.STATE_ROWS, ids=lambda row: row.id)
def test_every_state_row_can_fire(row: states.StateRow) -> None:
    assert row is states.state_row(row.word or "SOMETHING_NEW")


@pytest.mark.parametrize("row", states.PENDING_ROWS, ids=lambda row: row.id)
def test_every_reason_row_can_fire(row: states.PendingRow) -> None:
    text = row.start if row.exact else (row.start + row.contains) or "SomethingNew"
    assert row is states.pending_row(text)


@pytest.mark.parametrize("row", states.SUBMIT_ROWS, ids=lambda row: row.id)
def test_every_submit_row_can_fire(row: states.SubmitRow) -> None:
    assert row is states.submit_row(f"sbatch: error: {row.text}" if row.text else "something new")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("None", PendingClass.NORMAL),
        ("Priority", PendingClass.NORMAL),
        ("Resources", PendingClass.NORMAL),
        ("BurstBufferStageIn", PendingClass.NORMAL),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            PendingClass.NORMAL,
        ),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-4]", PendingClass.INFRASTRUCTURE),
        ("ReqNodeNotAvail, May be reserved for other job", PendingClass.INFRASTRUCTURE),
        ("PartitionDown", PendingClass.INFRASTRUCTURE),
        ("PartitionTimeLimit", PendingClass.NEVER),
        ("BadConstraints", PendingClass.NEVER),
        ("AssocMaxWallDurationPerJobLimit", PendingClass.NEVER),
        ("AssocMaxGRESPerJob", PendingClass.NEVER),
        ("AssocMaxCpuPerNode", PendingClass.NEVER),
        ("AssocMaxJobsLimit", PendingClass.QUOTA),
        ("AssocGrpGRES", PendingClass.QUOTA),
        ("AssocGrpCPUMinutesLimit", PendingClass.QUOTA),
        ("QOSMaxGRESPerUser", PendingClass.QUOTA),
        ("QOSMaxJobsPerUserLimit", PendingClass.QUOTA),
        ("QOSMaxCpuPerJobLimit", PendingClass.NEVER),
        ("QOSMaxWallDurationPerJobLimit", PendingClass.NEVER),
        ("QOSMinGRES", PendingClass.NEVER),
        ("QOSGrpCpuLimit", PendingClass.QUOTA),
        ("MaxGRESPerAccount", PendingClass.QUOTA),
        ("Job is at or exceeds assoc 12(a/b/(null)) group max tres", PendingClass.QUOTA),
        ("JobHeldUser", PendingClass.HELD),
        ("launch failed requeued held", PendingClass.HELD),
        ("JobHeldAdmin", PendingClass.HELD_BY_ADMIN),
        ("SomethingNew", PendingClass.UNKNOWN),
    ],
)
def test_reasons_fall_into_their_class(reason: str, expected: PendingClass) -> None:
    assert expected is states.pending_row(reason).pending_class


def test_every_sentence_for_people_is_one() -> None:
    for row in states.PENDING_ROWS:
        assert row.sentence[0].isupper()
        assert row.sentence.endswith(".")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("BOOT_FAIL", JobState.NODE_FAIL),
        ("STOPPED", JobState.SUSPENDED),
        ("POWER_UP_NODE", JobState.CONFIGURING),
        ("SPECIAL_EXIT", JobState.HELD),
        ("running", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
    ],
)
def test_words_that_mean_the_same_to_us_are_one_state(word: str, expected: JobState) -> None:
    assert expected is states.state_row(word).state


FINAL = {
    "unknown-partition": RejectClass.INVALID_PARTITION,
    "unknown-feature": RejectClass.INVALID_CONSTRAINT,
    "unknown-gres": RejectClass.INVALID_GRES,
    "unknown-gpu-type": RejectClass.UNSATISFIABLE,
    "too-many-gpus": RejectClass.UNSATISFIABLE,
    "too-many-nodes": RejectClass.UNSATISFIABLE,
    "too-many-cpus": RejectClass.UNSATISFIABLE,
    "too-much-memory": RejectClass.UNSATISFIABLE,
    "too-long": RejectClass.INVALID_TIME_LIMIT,
    "bad-time": RejectClass.INVALID_TIME_LIMIT,
    "bad-memory": RejectClass.INVALID_OPTION,
    "bad-option": RejectClass.INVALID_OPTION,
    "bad-nodelist": RejectClass.INVALID_OPTION,
    "bad-reservation": RejectClass.INVALID_OPTION,
    "bad-array": RejectClass.INVALID_OPTION,
    "bad-signal": RejectClass.INVALID_OPTION,
    "bad-wckey": RejectClass.INVALID_OPTION,
    "long-name": RejectClass.INVALID_OPTION,
    "long-comment": RejectClass.INVALID_OPTION,
    "negative-nice": RejectClass.INVALID_OPTION,
    "license": RejectClass.INVALID_OPTION,
    "empty-script": RejectClass.INVALID_OPTION,
    "no-interpreter": RejectClass.INVALID_OPTION,
}


@pytest.mark.parametrize("file", ["sbatch-outcomes.json", "sbatch-outcomes-enforced.json"])
def test_every_recorded_refusal_is_final_and_has_its_class(file: str) -> None:
    outcomes = json.loads((RECORDED / file).read_text(encoding="utf-8"))
    refused = {case: outcome["stderr"] for case, outcome in outcomes.items() if outcome["rc"] != 0}
    classes = {}
    for case, text in refused.items():
        failure = states.submit_failure(text)
        classes[case] = failure.reject_class if isinstance(failure, Rejected) else failure
    assert {case: FINAL.get(case) for case in refused} == classes


@pytest.mark.parametrize(
    "text",
    [
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        "sbatch: error: Batch job submission failed: Message receive failure",
        "sbatch: error: a text of a site's own plugin",
        "",
        # A doubt wins over whatever else was said.
        "sbatch: error: Socket timed out on send/recv operation\nsbatch: error: Invalid partition name specified",
    ],
)
def test_a_doubt_is_never_a_no(text: str) -> None:
    assert isinstance(states.submit_failure(text), SubmitUnknown)


@pytest.mark.parametrize(
    "text",
    [
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.",
        "sbatch: error: Batch job submission failed: Unable to create job record, try again",
        "sbatch: error: Batch job submission failed: Required partition not available (inactive or drain)",
    ],
)
def test_a_full_cluster_asks_to_come_again(text: str) -> None:
    assert isinstance(states.submit_failure(text), Refused)


def test_people_read_one_line_without_the_names_of_commands() -> None:
    text = (
        "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Bad\n\n"
    )
    assert "invalid partition specified: x; Batch job submission failed: Bad" == states.said(text)
    assert 500 == len(states.said("x" * 10_000))
