"""What the canary says about a site, and what the submit protocol makes of it. The read-backs were recorded from a real Slurm with
a job_submit plugin (tests/rigs/plugins.py)."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from llmop.cluster.slurm import parse
from llmop.domain import ids, job
from llmop.domain.fences import Canary, Fences, Identity, identified
from llmop.planner import canary

RECORDED, *NEWER = (
    json.loads(
        (Path(__file__).parents[2] / "data" / "slurm" / release / "canary.json").read_text(encoding="utf-8")
    )
    for release in ("22.05", "24.11", "26.05")
)
ASKED = canary.request("abc123", "0123abcd-0000", "/shared", (("partition", "gpu"), ("time", "60")))
FINE = Canary(
    seen_at=1000.0,
    version="22.05.8",
    generation=1,
    name_kept=True,
    comment_kept=True,
    dependency_kept=True,
    time_limit_kept=True,
)


def judged(case: str, recorded: dict[str, Any] = RECORDED) -> Canary:
    (seen,) = parse.squeue(recorded[case]["squeue"]["stdout"])
    return canary.judge(ASKED, seen, version="22.05.8", generation=1, now=1000.0)


def test_the_canary_is_held_and_asks_for_what_replicas_ask_for() -> None:
    assert ASKED.name == ASKED.comment == "llmop-abc123-canary-0123abcd"
    assert (ASKED.held, ASKED.singleton, ASKED.time_limit_s) == (True, True, canary.TIME_LIMIT_S)
    assert ASKED.options == (("partition", "gpu"),)
    assert ids.is_canary(ASKED.name, "abc123")
    assert not ids.is_canary(ASKED.name, "xyz789")
    assert not ids.is_canary(ids.job_name("abc123", "canary-x1y2z", "0123abcd"), "abc123")


@pytest.mark.parametrize(
    ("case", "fences"),
    [
        ("leaves-jobs-alone", Fences(identity=Identity.NAME, singleton=True)),
        ("rewrites-comment", Fences(identity=Identity.NAME, singleton=True)),
        ("cuts-time", Fences(identity=Identity.NAME, singleton=True)),
        ("strips-dependency", Fences(identity=Identity.NAME, singleton=False)),
        ("rewrites-name", Fences(identity=Identity.COMMENT, singleton=False)),
        ("rewrites-name-and-comment", Fences(identity=Identity.NOTHING, singleton=False)),
    ],
)
def test_what_a_plugin_does_decides_the_fences(case: str, fences: Fences) -> None:
    assert [fences] * 3 == [Fences.of(judged(case, recorded)) for recorded in (RECORDED, *NEWER)]


def test_a_canary_that_ran_at_once_says_nothing_about_its_dependency() -> None:
    (seen,) = parse.squeue(RECORDED["leaves-jobs-alone"]["squeue"]["stdout"])
    ran = dataclasses.replace(seen, state=job.JobState.RUNNING, dependency="")
    found = canary.judge(ASKED, ran, version="22.05.8", generation=1, now=1000.0)
    assert found.dependency_kept is None
    assert not Fences.of(found).singleton
    rows = {row.name: row for row in canary.table(found, None)}
    assert (rows["Singleton"].works, rows["Singleton"].found) == (
        None,
        "not seen: the canary was not held, and ran at once",
    )


def test_every_missing_fence_has_its_substitute_and_no_other() -> None:
    for case in ("leaves-jobs-alone", "rewrites-name", "rewrites-comment", "strips-dependency", "cuts-time"):
        for row in canary.table(judged(case), None):
            if row.name == "JobComment" and case == "rewrites-comment":
                assert not row.substitute  # the name is enough
            else:
                assert bool(row.substitute) == (not row.works), (case, row)


def test_the_table_names_what_was_found() -> None:
    rows = {row.name: row for row in canary.table(judged("rewrites-name"), None)}
    assert rows["JobName"].found == "became 'u1001_llmop-ab'"
    assert rows["Singleton"].found == "kept, but it counts jobs by their name"
    assert {row.name: row.found for row in canary.table(judged("cuts-time"), None)}["TimeLimit"] == (
        "420 s became 300 s"
    )


def test_the_site_itself_has_its_rows() -> None:
    poor = job.Capabilities(
        version="22.05.8",
        min_job_age_s=2,
        kill_wait_s=30,
        message_timeout_s=10,
        accounting=False,
        values={"PrivateData": "jobs,usage"},
    )
    rows = {row.name: row for row in canary.table(None, poor)}
    assert {name: row.works for name, row in rows.items()} == {
        "Accounting": False,
        "JobMemory": False,
        "OthersVisible": False,
    }
    assert all(row.substitute for row in rows.values())
    rich = dataclasses.replace(poor, min_job_age_s=300, accounting=True, values={})
    assert all(row.works and not row.substitute for row in canary.table(None, rich))


@pytest.mark.parametrize(
    ("writes_files", "rows"), [(None, []), (False, [(True, False)]), (True, [(False, True)])]
)
def test_files_stand_in_where_agents_do_not_reach_the_controller(
    writes_files: bool | None, rows: list[tuple[bool, bool]]
) -> None:
    found = canary.table(None, None, writes_files=writes_files)
    assert [(row.works, bool(row.substitute)) for row in found] == rows


@pytest.mark.parametrize(
    ("version", "generation", "later_s", "due"),
    [
        ("22.05.8", 1, 0.0, False),
        ("22.05.8", 1, canary.RENEWED_S - 1, False),
        ("22.05.8", 1, canary.RENEWED_S, True),
        ("22.05.8", 1, -2 * canary.RENEWED_S, True),
        ("22.05.9", 1, 0.0, True),
        ("22.05.8", 2, 0.0, True),
    ],
)
def test_it_is_sent_again_when_something_may_have_changed(
    version: str, generation: int, later_s: float, due: bool
) -> None:
    assert canary.is_due(FINE, version, generation, 1000.0 + later_s) == due
    assert canary.is_due(None, version, generation, 1000.0)


def test_jobs_carry_the_names_that_we_gave_them_where_only_comments_survive() -> None:
    ours = "llmop-abc123-chat-x1y2z-0123abcd"
    (seen,) = parse.squeue(RECORDED["rewrites-name"]["squeue"]["stdout"])
    renamed = dataclasses.replace(seen, comment=ours)
    stranger = dataclasses.replace(seen, name="theirs", comment="llmop is nice")
    kept = dataclasses.replace(seen, name=ours, comment="")
    assert [each.name for each in identified([renamed, stranger, kept], Identity.COMMENT)] == [
        ours,
        "theirs",
        ours,
    ]
    assert [each.name for each in identified([renamed], Identity.NAME)] == ["u1001_llmop-ab"]
