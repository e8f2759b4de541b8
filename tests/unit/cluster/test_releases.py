"""What newer Slurms print, recorded from real ones, is read as 22.05's is, but for the differences that stand here."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster.test_states import FINAL

from llmop.cluster.slurm import parse, states
from llmop.domain.job import JobState, ObservedJob, PendingClass, Rejected

DATA = Path(__file__).resolve().parents[2] / "data" / "slurm"
NEWER = sorted(path.name for path in DATA.iterdir() if path.name > "22.05")
READ = ("state", "pending", "exit_code", "signal", "restart_count", "comment", "time_limit_s")
# A node that died is found out by its reboot; its job is requeued where that is allowed. A job that could not be launched has
# exit code 0. What waits for a node that is down or busy gets other words, by what the scheduler looked at last.
DIFFERENT = {
    ("launch-failure", "exit_code"): 0,
    ("node-fail", "signal"): 1,
    ("node-down", "pending"): PendingClass.NORMAL,
    ("node-down", "restart_count"): 1,
}


def test_newer_releases_were_recorded() -> None:
    assert ["24.11", "26.05"] == NEWER


def jobs(release: str) -> dict[str, ObservedJob]:
    """The recorded queue by name; refused submissions share one name and are left out."""
    found = parse.squeue((DATA / release / "squeue.txt").read_bytes().decode())
    assert not [job for job in found if JobState.UNKNOWN is job.state or PendingClass.UNKNOWN is job.pending]
    return {job.name: job for job in found if job.name != "sbatch"}


@pytest.mark.parametrize("release", NEWER)
def test_the_same_jobs_are_read_the_same(release: str) -> None:
    before, after = jobs("22.05"), jobs(release)
    # An unknown job to depend on: 22.05 took it, newer ones refuse it.
    assert before.keys() - {"unknown-dependency"} == after.keys()
    different = {
        (name, field): getattr(job, field)
        for name, job in after.items()
        for field in READ
        if getattr(job, field) != getattr(before[name], field)
    }
    assert DIFFERENT == different


@pytest.mark.parametrize("release", NEWER)
@pytest.mark.parametrize("file", ["sbatch-outcomes.json", "sbatch-outcomes-enforced.json"])
def test_every_refusal_has_the_same_class(release: str, file: str) -> None:
    outcomes: dict[str, dict[str, Any]] = json.loads((DATA / release / file).read_text(encoding="utf-8"))
    refused = {case: outcome["stderr"] for case, outcome in outcomes.items() if outcome["rc"] != 0}
    assert len(refused) > 10
    classes = {}
    for case, text in refused.items():
        failure = states.submit_failure(text)
        classes[case] = failure.reject_class if isinstance(failure, Rejected) else failure
    assert {case: FINAL.get(case) for case in refused} == classes


@pytest.mark.parametrize("release", NEWER)
def test_the_settings_and_the_clock_are_read(release: str) -> None:
    text = (DATA / release / "scontrol-show-config.txt").read_text(encoding="utf-8")
    settings = parse.config(text)
    before = parse.config((DATA / "22.05" / "scontrol-show-config.txt").read_text(encoding="utf-8"))
    assert settings["SLURM_VERSION"].startswith(f"{release}.")
    for name in ("MinJobAge", "KillWait", "MessageTimeout", "MaxArraySize", "EnforcePartLimits"):
        assert before[name] == settings[name]
    assert f"Configuration data as of {parse.config_time(text):.0f}\n" in text
    shown = (DATA / release / "scontrol-show-partition.txt").read_text(encoding="utf-8")
    assert {"gpu", "preempt", "short", "closed"} == {one["PartitionName"] for one in parse.partitions(shown)}
