"""The look at a node: what it leaves behind, and what it says when nothing comes back."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from llmop.admin import node
from llmop.domain import fences, ids, site
from llmop.domain.checks import Check, Result
from llmop.planner import orphans
from llmop.reconciler import render
from llmop.testing.clock import FakeClock
from llmop.testing.virtual_slurm.driver import VirtualSlurm
from llmop.testing.virtual_slurm.faults import SubmitFault
from llmop.testing.virtual_slurm.jobs import VirtualJob
from llmop.testing.virtual_slurm.shape import Shape, constant
from llmop.testing.virtual_slurm.state import Signal

REPORT: dict[str, Any] = {
    "python": "3.9.1",
    "host": "n1",
    "shared": {"problem": "", "freeMiB": 9000},
    "missing": [],
    "container": {"runtime": "/usr/bin/apptainer", "version": "1.4"},
    "gpus": {},
    "controllers": [{"url": "https://c:1", "problem": "", "source": "127.0.0.1"}],
}


class Nodes:
    """Hooks of the virtual Slurm: what the job of a look does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.slurm: VirtualSlurm
        self.report: dict[str, Any] | None = None
        self.log = ""
        self.config: dict[str, Any] = {}

    def on_start(self, job: VirtualJob) -> None:
        directory = Path(job.request.directory)
        self.config = json.loads((directory / "probe.json").read_text())
        (directory / "job.log").write_text(self.log)
        if self.report is not None:
            (directory / "report.json").write_text(json.dumps(self.report))
        else:
            self.slurm.finish(job, 127)

    def on_signal(self, job: VirtualJob, signal: Signal) -> None:
        if signal is Signal.TERM:
            self.slurm.finish(job, 0, signal=15)

    def on_end(self, job: VirtualJob) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here files are seen as soon as they are written."""
    monkeypatch.setattr(node, "LOOKS_AFTER_END", 1)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    (tmp_path / "controllers.json").write_text(json.dumps({"version": 1, "urls": ["https://c:1"]}))
    made = Nodes(tmp_path)
    made.slurm = VirtualSlurm(made.clock, shape=Shape(queue_wait=constant(0)), hooks=made)
    return made


def a_look(nodes: Nodes, clock: FakeClock, **changes: Any) -> node.Look:
    usual: dict[str, Any] = {
        "where": site.Site(name="hpc", driver=site.DriverKind.SLURM, shared_dir=str(nodes.root)),
        "cluster": nodes.slurm,
        "clock": clock,
        "installation": render.Installation(id="abc123", agent="/shared/agent/a.py", ca="PEM"),
        "holding": fences.STANDARD,
        "options": (("partition", "gpu"), ("time", "600")),
        "engine": {},
        "gpus": 0,
    }
    return node.Look(**{**usual, **changes})


async def found(look: node.Look, wait_s: float = 60.0) -> dict[str, Check]:
    async with asyncio.timeout(20):
        return {check.name: check async for check in look.checks(wait_s)}


def left(nodes: Nodes) -> list[str]:
    return [path.name for path in (nodes.root / "preflight").iterdir()]


async def test_a_report_becomes_checks_and_nothing_is_left(nodes: Nodes) -> None:
    nodes.report = REPORT
    checks = await found(a_look(nodes, nodes.clock))
    assert (checks["Job"].result, checks["Python"].result) == (Result.OK, Result.OK)
    assert checks["GatewayToNode"].result is Result.WARN  # the report names no door
    (job,) = nodes.slurm.jobs()
    assert ids.is_preflight(job.name, "abc123")
    assert dict(job.request.options) == {"partition": "gpu"}
    assert job.request.time_limit_s == node.JOB_LIMIT_S
    assert nodes.config["controllers"] == ["https://c:1"]
    assert left(nodes) == []
    assert not [job for job in nodes.slurm.live_jobs() if job.phase.name == "RUNNING"]


async def test_a_door_is_knocked_at_and_a_stranger_behind_it_is_noticed(nodes: Nodes) -> None:
    async def stranger(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 somebody's mail server\r\n")
        writer.close()

    server = await asyncio.start_server(stranger, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    nodes.report = {**REPORT, "door": {"host": "127.0.0.1", "port": port}}
    checks = await found(a_look(nodes, nodes.clock))
    assert checks["GatewayToNode"].result is Result.FAIL
    assert "somebody else answers there" in checks["GatewayToNode"].message
    server.close()
    await server.wait_closed()
    checks = await found(a_look(nodes, nodes.clock))
    assert checks["GatewayToNode"].result is Result.FAIL


async def test_a_job_that_ends_without_a_report_shows_its_log(nodes: Nodes) -> None:
    nodes.log = "/nowhere/python3: No such file or directory\n"
    checks = await found(a_look(nodes, nodes.clock))
    assert list(checks) == ["Job"]
    assert checks["Job"].result is Result.FAIL
    assert "/nowhere/python3: No such file or directory" in checks["Job"].message
    assert left(nodes) == []


async def test_a_job_that_waits_too_long_is_a_warning_and_is_cancelled(nodes: Nodes) -> None:
    nodes.slurm.shape = Shape(queue_wait=constant(1e6))
    checks = await found(a_look(nodes, nodes.clock), wait_s=0.0)
    assert checks["Job"].result is Result.WARN
    assert "did not start within 0 s" in checks["Job"].message
    assert nodes.slurm.live_jobs() == ()
    assert left(nodes) == []


async def test_a_submission_that_is_refused_or_lost_is_said_and_leaves_nothing(nodes: Nodes) -> None:
    nodes.slurm.fail_submits(
        SubmitFault.SAYS, text="sbatch: error: Batch job submission failed: Invalid qos specification"
    )
    checks = await found(a_look(nodes, nodes.clock))
    assert "Invalid qos specification" in checks["Job"].message
    nodes.slurm.fail_submits(SubmitFault.ACCEPTED_UNSEEN)
    nodes.report = REPORT
    checks = await found(a_look(nodes, nodes.clock))
    assert checks["Job"].result is Result.FAIL
    assert [job for job in nodes.slurm.live_jobs() if job.phase.name != "COMPLETING"] == []
    assert left(nodes) == []


async def test_a_shared_directory_that_cannot_be_written_is_said(nodes: Nodes) -> None:
    (nodes.root / "preflight").touch()
    checks = await found(a_look(nodes, nodes.clock))
    assert checks["Job"].result is Result.FAIL


async def test_what_died_long_ago_is_taken_away(nodes: Nodes) -> None:
    clock = nodes.clock
    old, young = nodes.root / "preflight" / "old", nodes.root / "preflight" / "young"
    for path, age_s in ((old, orphans.PREFLIGHT_LIVES_S + 1), (young, 60.0)):
        path.mkdir(parents=True)
        os.utime(path, (clock.now() - age_s,) * 2)
    nodes.report = REPORT
    await found(a_look(nodes, clock))
    assert left(nodes) == ["young"]
