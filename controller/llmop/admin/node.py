"""Sends a short job that looks at a node, and reads what it found."""

import asyncio
import contextlib
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import llmop.agent
from llmop.admin import node_checks
from llmop.clock import Clock
from llmop.cluster import driver, file_threads
from llmop.cluster.slurm import script
from llmop.domain import fences, ids, job, os_errors, site
from llmop.domain.checks import Check, failed, passed, warned
from llmop.planner import orphans
from llmop.reconciler import render

LOOK_S = 2.0
FILE_LOOK_S = 0.25
LOOKS_AFTER_END = 12  # network file systems may show a file seconds after it was written
RUN_S = 300.0
JOB_LIMIT_S = 600
KNOCK_S = 10.0
REPORT_LIMIT = 256 * 1024
_LOG_LIMIT = 4096
_Answer = TypeVar("_Answer")


class Look:
    """One look at a node of `where`. `options` are those of the replica's job, `engine` the engine part of its replica.json."""

    def __init__(
        self,
        where: site.Site,
        cluster: driver.Cluster,
        clock: Clock,
        installation: render.Installation,
        holding: fences.Fences,
        options: Sequence[tuple[str, str]],
        engine: Mapping[str, Any],
        gpus: int,
    ) -> None:
        self._where = where
        self._cluster = cluster
        self._clock = clock
        self._installation = installation
        self._holding = holding
        self._options = tuple((name, value) for name, value in options if name not in ("time", "time-min"))
        self._container = engine.get("container", {"kind": "none"})
        self._requires = list(engine.get("requires", ()))
        self._gpus = gpus
        self._threads = file_threads.FileThreads("preflight")
        self._word = secrets.token_hex(16)
        self._name = ids.preflight_name(installation.id, clock.uid())
        self._directory = Path(where.shared_dir) / "preflight" / self._name

    async def checks(self, wait_s: float) -> AsyncIterator[Check]:
        """Each check as soon as it is known. Leaves neither job nor files, however it ends."""
        subject = f"node of {self._where.name}"
        try:
            await self._threads.run(self._write_files)
        except OSError as error:
            yield failed(subject, "Job", os_errors.sentence(error, self._directory), "see SharedDirectory")
            return
        outcome: job.SubmitOutcome | None = None
        try:
            outcome = await self._cluster.submit(self._request())
            if not isinstance(outcome, job.Submitted):
                fix = "llmctl preflight --skip-node shows the rest"
                yield failed(subject, "Job", outcome.message, fix)
                return
            async for check in self._follow(subject, outcome.job_id, wait_s):
                yield check
        finally:
            # The caller may have gone away; this is done all the same.
            await asyncio.shield(self._clear(outcome))

    def _request(self) -> job.JobRequest:
        text = script.batch_script(
            python=self._where.python,
            agent=str(self._directory / "probe.py"),
            config=str(self._directory / "probe.json"),
            prelude=self._where.prelude,
        )
        return job.JobRequest(
            name=self._name,
            options=self._options,
            script=text,
            directory=str(self._directory),
            time_limit_s=JOB_LIMIT_S,
            singleton=self._holding.singleton,
            comment=self._name if self._holding.identity is fences.Identity.COMMENT else "",
        )

    def _write_files(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True)
        self._remove_old()
        source = Path(llmop.agent.__file__).with_name("probe.py")
        (self._directory / "probe.py").write_bytes(source.read_bytes())
        published = json.loads((Path(self._where.shared_dir) / "controllers.json").read_bytes())
        contained = self._container.get("kind") == "apptainer"
        image = str(self._container.get("image", "")) if contained else ""
        config = {
            "agent": self._installation.agent,
            "sharedDir": self._where.shared_dir,
            "requires": [*self._requires, *([image] if image else [])],
            "image": image,
            "binds": list(self._container.get("binds", ())) if contained else [],
            "gpu": self._container.get("gpu", "none"),
            "controllers": published["urls"],
            "ca": self._installation.ca,
            "word": self._word,
        }
        path = self._directory / "probe.json"
        path.touch(0o600)
        path.write_text(json.dumps(config))

    def _remove_old(self) -> None:
        """What a controller left that died in between: nobody waits for it any more."""
        for path in self._directory.parent.iterdir():
            with contextlib.suppress(OSError):
                if self._clock.now() - path.stat().st_mtime > orphans.PREFLIGHT_LIVES_S:
                    shutil.rmtree(path, ignore_errors=True)

    async def _follow(self, subject: str, job_id: str, wait_s: float) -> AsyncIterator[Check]:
        state, problem = await self._until_running(job_id, wait_s)
        if problem:
            fix = "wait longer with --wait, ask for less, or leave the node out with --skip-node"
            yield warned(subject, "Job", problem, fix)
            return
        report = await self._report(job_id, state)
        if isinstance(report, str):
            yield failed(subject, "Job", report, "the last lines of the job's log say why")
            return
        yield passed(subject, "Job", f"job {job_id} ran")
        image = str(self._container.get("image", "")) if self._container.get("kind") == "apptainer" else ""
        for check in node_checks.check(report, gpus=self._gpus, image=image, subject="node"):
            yield check
        yield await self._knock(report)

    async def _until_running(self, job_id: str, wait_s: float) -> tuple[job.JobState, str]:
        """The state when it does not wait any more; or why it still does."""
        until = self._clock.monotonic() + wait_s
        reason = ""
        while True:
            snapshot = await self._cluster.snapshot()
            seen = next((each for each in snapshot.jobs if each.job_id == job_id), None)
            if seen is not None and seen.state is not job.JobState.PENDING:
                return seen.state, ""
            if seen is not None:
                reason = seen.explanation or seen.reason
            elif snapshot.is_complete:
                return (
                    job.JobState.UNKNOWN,
                    "",
                )  # over and forgotten already, or about to be seen: the report decides
            else:
                reason = snapshot.problem
            if self._clock.monotonic() >= until:
                return job.JobState.PENDING, f"did not start within {wait_s:.0f} s: {reason}"
            await asyncio.sleep(LOOK_S)

    async def _report(self, job_id: str, state: job.JobState) -> Mapping[str, Any] | str:
        """What the node wrote; a text when it wrote nothing."""
        until = self._clock.monotonic() + RUN_S
        looked_at = self._clock.monotonic()
        patience = LOOKS_AFTER_END
        while True:
            is_over = state.is_terminal or state is job.JobState.COMPLETING
            found = await self._patiently(self._read, None)
            if found is not None:
                return found
            patience -= is_over
            if patience < 0:
                log = await self._patiently(self._log, "")
                return f"job {job_id} ended ({state}) without a report; its log: {log or 'empty, or not written'}"
            now = self._clock.monotonic()
            if now >= until:
                return f"job {job_id} runs for {RUN_S:.0f} s without a report"
            await asyncio.sleep(FILE_LOOK_S)
            if now - looked_at >= LOOK_S:
                looked_at = now
                snapshot = await self._cluster.snapshot()
                seen = next((each for each in snapshot.jobs if each.job_id == job_id), None)
                if seen is not None:
                    state = seen.state
                elif snapshot.is_complete:
                    state = job.JobState.COMPLETED

    def _read(self) -> Mapping[str, Any] | None:
        try:
            # Listing first: attribute caches of network file systems hide new files from those who ask for them by name.
            if "report.json" not in {path.name for path in self._directory.iterdir()}:
                return None
            with (self._directory / "report.json").open("rb") as file:
                found = json.loads(file.read(REPORT_LIMIT))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _log(self) -> str:
        with contextlib.suppress(OSError):
            text = (self._directory / "job.log").read_bytes()[-_LOG_LIMIT:].decode(errors="replace")
            return " / ".join(line.strip() for line in text.splitlines()[-5:] if line.strip())
        return ""

    async def _knock(self, report: Mapping[str, Any]) -> Check:
        """Connects to the node from here, as a gateway beside this controller would."""
        door = node_checks.door(report)
        fix = (
            "open the way from the gateway's machine to the nodes' ports from 10000 up (not those of "
            "net.ipv4.ip_local_port_range)"
        )
        if door is None:
            return warned("controller", "GatewayToNode", "not tried: the node does not know its address", fix)
        host, port = door
        try:
            async with asyncio.timeout(KNOCK_S):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    word = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            reason = str(error) or f"no answer within {KNOCK_S:.0f} s"
            return failed("controller", "GatewayToNode", f"{host}:{port}: {reason}", fix)
        if word.decode(errors="replace").strip() != self._word:
            return failed("controller", "GatewayToNode", f"{host}:{port}: somebody else answers there", fix)
        return passed("controller", "GatewayToNode", f"{host}:{port}, from the controller's host")

    async def _clear(self, outcome: job.SubmitOutcome | None) -> None:
        job_ids = [outcome.job_id] if isinstance(outcome, job.Submitted) else []
        if isinstance(outcome, job.SubmitUnknown):
            snapshot = await self._cluster.snapshot()
            job_ids = [each.job_id for each in snapshot.jobs if self._name in (each.name, each.comment)]
        if job_ids:
            await self._cluster.cancel(job_ids)
        await self._patiently(lambda: shutil.rmtree(self._directory, ignore_errors=True), None)

    async def _patiently(self, work: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
        """What the file system says; `otherwise` when it does not answer in time."""
        try:
            return await self._threads.run(work)
        except OSError:
            return otherwise
