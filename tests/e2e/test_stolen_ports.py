"""Another account's process on the node takes the port of an engine, before it or after it: it gets no request, no key, and is never an engine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import thief
from tests.e2e.installation import Installation, Replica, simulator
from tests.rigs.slurm import SlurmRig

OTHER = "llmopother"
NOT_ANSWERED = frozenset({-1, 0, 404, 502, 503, 504})  # while engines are killed, or there are none


class Thief:
    """See `tests.e2e.thief`."""

    def __init__(self, rig: SlurmRig, python: Path, *arguments: str) -> None:
        self.log = rig.shared / f"thief-{'-'.join(arguments)}.jsonl"
        program = shutil.copy(thief.__file__, rig.shared)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                **rig.as_user([str(python), "-I", program, *arguments], user=OTHER),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def said(self, word: str) -> list[Any]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line[word] for line in lines if word in line]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.unlink()


@pytest.fixture
def steal(slurm_rig: SlurmRig, llmop_venv: Path) -> Iterator[Callable[..., Thief]]:
    thieves: list[Thief] = []

    def start(*arguments: object) -> Thief:
        thieves.append(Thief(slurm_rig, llmop_venv / "bin/python", *map(str, arguments)))
        return thieves[-1]

    yield start
    for each in thieves:
        each.stop()


def port_of(replica: Replica) -> int:
    return int(replica.status["endpoint"]["port"])


def engine_of(replica: Replica) -> int:
    """The pid of the engine: the newest process with its port in the command line."""
    word = f"{thief.FLAG}{port_of(replica)}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return max(found)


def test_ports_that_are_taken_before_the_engine_binds_them_are_given_up(
    install: Callable[..., Installation], steal: Callable[..., Thief]
) -> None:
    site = install()
    taker = steal("watch", site.uid, 2)
    site.apply(simulator(replicas=2))
    site.wait_ready("sim", 2)
    taken = site.wait(
        "two ports to be stolen", lambda: taker.said("took")[1:] and taker.said("took"), timeout=20
    )
    assert not {*taken} & {port_of(each) for each in site.ready("sim")}
    assert [0, 0] == [each.status.get("restarts", 0) for each in site.ready("sim")]
    with site.flowing() as traffic:
        site.wait("both to answer", lambda: len(traffic.replicas) == 2, timeout=20)
    assert [] == taker.said("got")


def test_the_port_of_an_engine_that_has_died_is_nobody_elses(
    install: Callable[..., Installation], steal: Callable[..., Thief]
) -> None:
    """The thief tries all the time, under traffic: while the engine serves, at its end, after its restart, and when the job is over."""
    site = install()
    site.apply(simulator(replicas=1))
    site.wait_ready("sim", 1)
    (before,) = site.ready("sim")
    taker = steal("wait", port_of(before))
    site.wait("the thief to try", lambda: taker.said("tried"), timeout=20)
    with site.flowing() as traffic:
        site.wait("an answer", lambda: traffic.replicas, timeout=20)
        traffic.phase("killed", allowed=NOT_ANSWERED)
        os.kill(engine_of(before), signal.SIGKILL)
        site.wait("the restart", lambda: restarted(site, before), timeout=30)
        site.wait_ready("sim", 1)
        (after,) = site.ready("sim")
        site.wait("an answer of the new engine", lambda: traffic.replicas, timeout=20)
        assert (before.name, before.job_id) == (after.name, after.job_id)
        assert port_of(before) != port_of(after)
        assert [[], []] == [taker.said("got"), taker.said("took")]
        site.delete("sim")
        site.wait_gone("sim")
        # The agent is gone, and with it what held the port.
        site.wait("the thief to have the port", lambda: taker.said("took"), timeout=20)
        site.hold("nobody to come", lambda: not taker.said("got"), seconds=3)
    assert [] == taker.said("got")


def restarted(site: Installation, replica: Replica) -> bool:
    return any(
        each.name == replica.name and each.status.get("endpoint") and port_of(each) != port_of(replica)
        for each in site.ready("sim")
    )
