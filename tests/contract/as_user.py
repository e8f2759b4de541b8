"""A driver that lives in a process of an ordinary account; calls go there and answers come back."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from tests.rigs.slurm import SlurmRig

from llmop.clock import SystemClock
from llmop.cluster.slurm.commands import SlurmCommands
from llmop.domain.job import Capabilities, History, JobRequest, Snapshot, SubmitOutcome


class AsUser:
    """See `llmop.cluster.driver.Cluster`. `end` ends the process."""

    def __init__(self, rig: SlurmRig, environ: Mapping[str, str] | None = None, **timeouts: float) -> None:
        context = multiprocessing.get_context("spawn")  # not a fork: see `tests.rigs.processes.as_account`
        self._ours, theirs = context.Pipe()
        arguments = (theirs, rig.uid, rig.gid, {**rig.env, **(environ or {})}, timeouts)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    async def _call(self, method: str, *arguments: object) -> Any:
        self._ours.send((method, arguments))
        return await asyncio.to_thread(self._ours.recv)

    async def submit(self, request: JobRequest) -> SubmitOutcome:
        outcome: SubmitOutcome = await self._call("submit", request)
        return outcome

    async def snapshot(self) -> Snapshot:
        snapshot: Snapshot = await self._call("snapshot")
        return snapshot

    async def history(self, names: Sequence[str], since: float) -> History:
        history: History = await self._call("history", names, since)
        return history

    async def cancel(self, job_ids: Sequence[str]) -> str:
        return str(await self._call("cancel", job_ids))

    async def signal(self, job_id: str) -> str:
        return str(await self._call("signal", job_id))

    async def capabilities(self) -> Capabilities | str:
        capabilities: Capabilities | str = await self._call("capabilities")
        return capabilities

    def end(self) -> None:
        self._ours.send(None)
        self._process.join(timeout=60)
        self._ours.close()
        self._process.close()


def _serve(
    calls: Connection, uid: int, gid: int, environ: dict[str, str], timeouts: dict[str, float]
) -> None:
    """In the process. The account may not be able to read this Python's modules: what is used is imported before."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    with asyncio.Runner() as runner:
        driver = SlurmCommands(SystemClock(), environ=environ, **timeouts)
        while (call := calls.recv()) is not None:
            method, arguments = call
            calls.send(runner.run(getattr(driver, method)(*arguments)))
