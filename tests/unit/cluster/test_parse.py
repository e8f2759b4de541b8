"""Slurm's output, as recorded from a real 22.05, and everything that must not be taken for it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmop.cluster.slurm import parse, states
from llmop.domain.job import JobState, ObservedJob, PendingClass

RECORDED = Path(__file__).resolve().parents[2] / "data" / "slurm" / "22.05"
US, RS = parse.FIELD_END, parse.RECORD_END


def recorded(name: str) -> str:
    return (RECORDED / name).read_bytes().decode()


@pytest.fixture(scope="module")
def jobs() -> dict[str, ObservedJob]:
    """The recorded queue by name; refused submissions share one name and are left out."""
    return {job.name: job for job in parse.squeue(recorded("squeue.txt")) if job.name != "sbatch"}


def record(**values: str) -> str:
    """One record of squeue, of a job that runs, with some fields changed."""
    plain = {
        "JobID": "7",
        "Name": "llmop-x",
        "State": "RUNNING",
        "Reason": "None",
        "Partition": "gpu",
        "BatchHost": "n1",
        "NodeList": "n1",
        "SubmitTime": "1760000000",
        "StartTime": "1760000010",
        "EndTime": "1760000610",
        "TimeLimit": "10:00",
        "PreemptTime": "N/A",
        "RestartCnt": "0",
        "exit_code": "0",
        "Dependency": "(null)",
        "Comment": "(null)",
    }
    unknown = values.keys() - set(parse.SQUEUE_FIELDS)
    assert not unknown
    fields = [{**plain, **values}.get(name, "(null)") for name in parse.SQUEUE_FIELDS]
    return US.join(fields) + RS + "\n"


def test_the_format_asks_for_31_fields_that_are_neither_cut_nor_padded() -> None:
    assert 31 == len(parse.SQUEUE_FIELDS)
    assert parse.SQUEUE_FORMAT.startswith(f"JobID:{US},ArrayJobID:{US},")
    assert parse.SQUEUE_FORMAT.endswith(f",admin_comment:{US},system_comment:{RS}")


def test_every_recorded_job_is_read() -> None:
    for name in ("squeue.txt", "squeue-early.txt"):
        text = recorded(name)
        found = parse.squeue(text)
        assert text.count(RS) == len(found)
        assert not [job for job in found if job.state is JobState.UNKNOWN]
        assert not [job for job in found if job.pending is PendingClass.UNKNOWN]


def test_no_output_at_all_is_a_complete_and_empty_queue() -> None:
    assert () == parse.squeue(recorded("squeue-empty.txt"))


def test_a_running_job_has_node_times_and_limit(jobs: dict[str, ObservedJob]) -> None:
    job = next(job for job in jobs.values() if job.state is JobState.RUNNING and not job.restart_count)
    assert job.time_limit_s is not None
    assert job.started_at is not None
    assert job.started_at + job.time_limit_s == job.ends_at
    assert job.node and job.node == job.node_list
    assert (None, None) == (job.exit_code, job.signal)


def test_recorded_ends_have_their_states_and_codes(jobs: dict[str, ObservedJob]) -> None:
    timeout = next(job for job in jobs.values() if job.state is JobState.TIMEOUT)
    assert timeout.ends_at is not None
    assert {JobState.PREEMPTED, JobState.FAILED, JobState.COMPLETED} <= {job.state for job in jobs.values()}
    assert (0, 11) == (jobs["signalled"].exit_code, jobs["signalled"].signal)


def test_a_requeued_job_counts_its_restart(jobs: dict[str, ObservedJob]) -> None:
    assert [1] == [job.restart_count for job in jobs.values() if job.restart_count]


def test_free_text_survives_as_it_was(jobs: dict[str, ObservedJob]) -> None:
    assert any("\n" in job.comment for job in jobs.values())
    assert any("|" in job.name for job in jobs.values())


def test_absent_values_are_empty() -> None:
    text = record(
        State="PENDING", BatchHost="n/a", NodeList="", StartTime="N/A", EndTime="N/A", PreemptTime="N/A"
    )
    (job,) = parse.squeue(text)
    assert ("", "", "", "", "") == (job.node, job.node_list, job.comment, job.dependency, job.reason)
    assert (None, None, None) == (job.started_at, job.ends_at, job.preempted_at)


def test_a_waiting_job_says_why_in_words() -> None:
    (job,) = parse.squeue(record(State="PENDING", Reason="ReqNodeNotAvail, Reserved for maintenance"))
    assert PendingClass.INFRASTRUCTURE is job.pending
    assert "The nodes are reserved for maintenance before the job could end." == job.explanation


def test_an_unknown_reason_is_shown_as_it_is() -> None:
    (job,) = parse.squeue(record(State="PENDING", Reason="BlueMoon, twice"))
    assert PendingClass.UNKNOWN is job.pending
    assert "Slurm gives a reason that llmop does not know: BlueMoon, twice" == job.explanation


def test_the_reason_of_a_job_that_does_not_wait_is_not_classified() -> None:
    (job,) = parse.squeue(record(State="CANCELLED", Reason="PartitionDown"))
    assert (None, "", "PartitionDown") == (job.pending, job.explanation, job.reason)


def test_a_new_state_word_is_unknown_and_kept() -> None:
    (job,) = parse.squeue(record(State="EXPEDITING"))
    assert (JobState.UNKNOWN, "EXPEDITING") == (job.state, job.state_text)


@pytest.mark.parametrize(
    "text",
    [
        "Welcome to the cluster\n" + record(),
        record() + "Have a nice day\n",
        "slurm_load_jobs error: Unexpected message received\n",
        record()[:-1],
        record()[:-2],
        record()[:40],
        "7",
        "\n",
        record() + RS + "\n",
        record() + record().replace(US, "", 1),
        record(Comment=f"one field{US}too many"),
        record(JobID=""),
        record(JobID="0"),
        record(JobID="7_[1-3]"),
        "CLUSTER: north\n" + record(),
    ],
)
def test_anything_but_whole_records_is_no_information(text: str) -> None:
    with pytest.raises(parse.Garbled, match="squeue printed"):
        parse.squeue(text)


@given(st.data())
def test_no_cut_in_the_middle_of_a_record_goes_unnoticed(data: st.DataObject) -> None:
    text = record(JobID="1") + record(JobID="2") + record(JobID="3")
    ends = {0, len(text) // 3, 2 * len(text) // 3, len(text)}
    cut = data.draw(st.integers(0, len(text)).filter(lambda position: position not in ends))
    with pytest.raises(parse.Garbled):
        parse.squeue(text[:cut])


@given(st.text())
def test_whatever_text_comes_it_is_jobs_or_garbled(text: str) -> None:
    try:
        found = parse.squeue(text)
    except parse.Garbled:
        return
    assert text.count(RS + "\n") == len(found)


@given(
    name=st.text(st.characters(exclude_characters=US + RS)),
    comment=st.text(st.characters(exclude_characters=US + RS)),
)
def test_names_and_comments_come_back_unchanged(name: str, comment: str) -> None:
    (job,) = parse.squeue(record(Name=name, Comment=comment))
    assert name == job.name
    assert comment == job.comment or job.comment == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0, 0)),
        ("768", (3, 0)),  # 22.05: a raw wait status
        ("9", (0, 9)),
        ("139", (0, 11)),  # with a core
        ("4021", (15, 53)),
        ("1:0", (1, 0)),  # 23.02 and later
        ("0:15", (0, 15)),
        ("4294967294", (None, None)),  # NO_VAL
        ("N/A", (None, None)),
        ("", (None, None)),
        ("1:x", (None, None)),
    ],
)
def test_exit_codes_of_all_releases_are_read(text: str, expected: tuple[int | None, int | None]) -> None:
    assert expected == parse.exit_status(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1:00", 60),
        ("10:30", 630),
        ("1:00:00", 3600),
        ("2-03:04:05", 183845),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
        ("5", None),
    ],
)
def test_time_limits_are_seconds(text: str, expected: int | None) -> None:
    assert expected == parse.time_limit(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("17\n", "17"),
        ("17;north\n", "17"),
        ("a message of the site\n17\n", "17"),
        ("", None),
        ("Submitted batch job 17\n", None),
        ("17\ntoo late\n", None),
        ("0\n", None),
    ],
)
def test_the_job_id_is_the_last_line_of_sbatch(text: str, expected: str | None) -> None:
    assert expected == parse.sbatch(text)


def accounted(*values: tuple[str, ...]) -> str:
    return "".join(US.join(fields) + "\n" for fields in values)


ENDED = (
    *("41", "llmop-x", "FAILED", "70:0", "None", "1760000000", "1760000010", "1760000100", "10"),
    *("gpu", "n1", ""),
)


def test_the_accounting_tells_how_a_job_ended() -> None:
    (job,) = parse.sacct(accounted(ENDED))
    assert ("41", "llmop-x", JobState.FAILED, 70, 0) == (
        job.job_id,
        job.name,
        job.state,
        job.exit_code,
        job.signal,
    )
    assert (1760000000.0, 1760000010.0, 1760000100.0) == (job.submitted_at, job.started_at, job.ends_at)
    assert (600, "gpu", "n1", 0) == (job.time_limit_s, job.partition, job.node_list, job.restart_count)


def test_the_accounting_names_who_cancelled() -> None:
    (job,) = parse.sacct(accounted((*ENDED[:2], "CANCELLED by 1234", "0:15", *ENDED[4:])))
    assert (JobState.CANCELLED, "CANCELLED by 1234") == (job.state, job.state_text)


def test_each_record_of_a_requeued_job_is_a_restart_of_it() -> None:
    jobs = parse.sacct(accounted(ENDED, ("42", *ENDED[1:]), ENDED))
    assert [("41", 0), ("42", 0), ("41", 1)] == [(job.job_id, job.restart_count) for job in jobs]


def test_comments_with_line_breaks_do_not_break_records() -> None:
    jobs = parse.sacct(accounted((*ENDED[:-1], "two\nlines\n"), ("42", *ENDED[1:])))
    assert [("41", "two\nlines\n"), ("42", "")] == [(job.job_id, job.comment) for job in jobs]


def test_an_accounting_without_records_is_empty() -> None:
    assert () == parse.sacct("")


@pytest.mark.parametrize(
    "text",
    [
        "sacct: error\n",
        accounted(ENDED)[:30],
        accounted(ENDED, ENDED[:5]),
        accounted(("x", *ENDED[1:])),
        "motd\n" + accounted(ENDED),
    ],
)
def test_an_incomplete_accounting_is_no_information(text: str) -> None:
    with pytest.raises(parse.Garbled, match="sacct printed"):
        parse.sacct(text)


def test_slurms_clock_stands_in_its_configuration() -> None:
    assert 1795406788.0 == parse.config_time((RECORDED / "scontrol-show-config.txt").read_text())
    assert None is parse.config_time("Configuration data as of 2026-11-28T03:00:00\n")
    assert None is parse.config_time("")


def test_the_answers_of_test_only_become_a_sentence_or_none() -> None:
    recorded = json.loads((RECORDED / "test-only.json").read_text())
    assert "would run on n1 of partition gpu" == parse.test_only(recorded["fits"]["stderr"])
    assert "would run on n[1-2] of partition gpu" == parse.test_only(recorded["no-node-free"]["stderr"])
    assert "" == parse.test_only("sbatch: everything is fine")


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unknown-account", "Invalid account or account/partition combination specified"),
        ("unknown-qos", "Invalid qos specification"),
        ("unknown-partition", "invalid partition specified: nowhere; Invalid partition name specified"),
        ("too-long", "Requested time limit is invalid (missing or exceeds some limit)"),
    ],
)
def test_the_refusals_of_test_only_are_said_in_slurms_words(case: str, words: str) -> None:
    assert words == states.said(json.loads((RECORDED / "test-only.json").read_text())[case]["stderr"])


def test_the_recorded_configuration_is_read() -> None:
    settings = parse.config(recorded("scontrol-show-config.txt"))
    assert ("22.05.8", "", "accounting_storage/none") == (
        settings["SLURM_VERSION"],
        settings["JobSubmitPlugins"],
        settings["AccountingStorageType"],
    )
    assert 5 == parse.seconds(settings["KillWait"])
    assert None is parse.seconds("UNLIMITED")


def test_the_recorded_partitions_are_read() -> None:
    found = parse.partitions(recorded("scontrol-show-partition.txt"))
    assert {"gpu", "preempt", "short", "closed"} == {values["PartitionName"] for values in found}
    assert "DOWN" == next(values["State"] for values in found if values["PartitionName"] == "closed")


def test_recorded_submissions_give_the_ids_that_sbatch_printed() -> None:
    outcomes = json.loads(recorded("sbatch-outcomes.json"))
    accepted = {case: outcome for case, outcome in outcomes.items() if outcome["rc"] == 0}
    assert accepted
    for outcome in accepted.values():
        assert outcome["stdout"].strip() == parse.sbatch(outcome["stdout"])
