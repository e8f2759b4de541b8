"""Replicas on a real Slurm follow the load: a step up and back, and fifty requests that come at once to a model without replicas."""

from __future__ import annotations

import dataclasses
import datetime
import http.client
import itertools
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.installation import Installation, simulator
from tests.rigs.release import PATH

from llmop.clock import SystemClock

# A request takes a second, so that as many are under way as come in a second.
PACE = ("--decode-base-ms=50",)
TOKENS = 20
CROWD = 50
CLOCK = SystemClock()
Figures = Callable[[str, object], None]  # what is recorded as "figures" is shown when all tests are over
SBATCH = """#!/bin/sh
date +%s.%N >> {calls}
exec {program} "$@"
"""
_LISTENS = re.compile(r"^(\S+)Z agent: engine listens on", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """`asked_at` and `at`, when it was complete, are epoch seconds; `problem` is "" for a text."""

    asked_at: float
    at: float
    problem: str


def ask(site: Installation, model: str) -> Answer:
    asked_at = CLOCK.now()
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=90)
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": TOKENS}}
    headers = {
        "Authorization": f"Bearer {site.key}",
        "Content-Type": "application/json",
        "X-Model": model,
    }
    try:
        connection.request("POST", "/generate", json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        is_answer = response.status == 200 and bool(json.loads(text)["generated_text"])
        problem = "" if is_answer else f"{response.status} {text[:300]}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return Answer(asked_at=asked_at, at=CLOCK.now(), problem=problem)


class Stream:
    """Requests that come at a rate, at first one per second, whatever becomes of those before them."""

    def __init__(self, site: Installation, model: str) -> None:
        self._per_second = 1.0
        self._site = site
        self._model = model
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(200)
        self._asked: list[Future[Answer]] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._pool.shutdown()

    def change(self, per_second: float) -> float:
        """When (epoch seconds). Takes effect with the request that is due next."""
        self._per_second = per_second
        return CLOCK.now()

    @property
    def answers(self) -> list[Answer]:
        """Of all, once it is over."""
        return [each.result() for each in self._asked]

    def _run(self) -> None:
        due = time.monotonic()
        while not self._is_over.wait(max(0.0, due - time.monotonic())):
            self._asked.append(self._pool.submit(ask, self._site, self._model))
            due += 1 / self._per_second


def history(site: Installation, name: str) -> list[dict[str, Any]]:
    return list(site.status("ModelDeployment", name).get("scalingHistory") or ())


def test_replicas_follow_a_step_of_the_load_and_back_without_a_failed_request(
    install: Callable[..., Installation], record_property: Figures
) -> None:
    """1, 40 and 1 request per second. Nothing moves before and after the step, for longer than the load is averaged over."""
    site = install()
    scaling = {
        "minReplicas": 1,
        "maxReplicas": 6,
        "metrics": [{"type": "InFlight", "target": 8}],
        "stableWindow": "6s",
        "panicWindow": "3s",
        "behavior": {"scaleDown": {"stabilizationWindow": "8s"}},
    }
    site.apply(simulator("step", replicas=None, args=PACE, scaling=scaling))
    site.wait_ready("step", 1)

    def is_one() -> bool:
        return site.status("ModelDeployment", "step").get("replicas") == 1

    with Stream(site, "step") as stream:
        site.hold("one replica serves a request per second", is_one, seconds=8)
        rose_at = stream.change(40.0)
        site.wait("five to be ready", lambda: len(site.ready("step")) >= 5, timeout=120)
        five_after = CLOCK.now() - rose_at
        fell_at = stream.change(1.0)
        site.wait("one to be left", is_one, timeout=120)
        site.wait_settled(1)
        one_after = CLOCK.now() - fell_at
        site.hold("one replica serves a request per second again", is_one, seconds=8)
    answers = stream.answers
    assert [] == [each.problem for each in answers if each.problem][:10], site.report()

    steps = history(site, "step")
    assert (1, 1) == (steps[0]["from"], steps[-1]["to"])
    assert all(one["to"] == after["from"] for one, after in itertools.pairwise(steps))
    rises = [each["to"] > each["from"] for each in steps]
    turns = [one for one, after in itertools.pairwise(rises) if one != after]
    assert [True] == turns, steps  # it turns once, from growing to shrinking: nothing flaps
    times = [datetime.datetime.fromisoformat(each["time"]).timestamp() for each in steps]
    for each, rises_now, at in zip(steps, rises, times, strict=True):
        assert ("LoadRose" if rises_now else "LoadFell") == each["reason"]
        assert at > (rose_at if rises_now else fell_at) - 1  # written in whole seconds
        metric = each["inputs"]["metrics"][0]
        assert f"InFlight {metric['average']}, target 8" in each["message"]
    waits = sorted(each.at - each.asked_at for each in answers)
    record_property(
        "figures",
        f"1 -> 40 -> 1 requests per second: five replicas ready after {five_after:.1f} s, one left after {one_after:.1f} s; "
        f"{len(answers)} requests, none failed, median {waits[len(waits) // 2]:.2f} s, slowest {waits[-1]:.2f} s (an answer takes 1 s)\n"
        + "\n".join(
            f"  {at - rose_at:5.1f} s  {each['from']} -> {each['to']} {each['reason']}: {each['message']}"
            for at, each in zip(times, steps, strict=True)
        ),
    )


@pytest.fixture
def counted(slurm_rig: Any) -> Iterator[Path]:
    """A folder with an sbatch that writes down in the file `calls` when it was called, in seconds since 1970."""
    folder: Path = slurm_rig.shared / "counted"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "sbatch").write_text(
        SBATCH.format(calls=folder / "calls", program=shutil.which("sbatch", path=PATH))
    )
    (folder / "sbatch").chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_crowd_before_a_model_at_zero_is_answered_by_one_job(
    install: Callable[..., Installation], counted: Path, record_property: Figures
) -> None:
    """What lies between the first request and sbatch, and between an engine that listens and the first answer, is ours: it is shown."""
    site = install(path_first=counted)
    scaling = {"minReplicas": 0, "maxReplicas": 4, "metrics": [{"type": "InFlight", "target": CROWD}]}
    site.apply(simulator("zero", replicas=None, scaling=scaling))
    site.wait("the gateway to know the model", lambda: is_listed(site, "zero"), timeout=30)
    assert 0 == site.status("ModelDeployment", "zero")["scaling"]["desiredReplicas"]
    calls = counted / "calls"
    earlier = len(calls.read_text().split()) if calls.exists() else 0  # of the job that looks at the cluster

    began = CLOCK.now()
    with ThreadPoolExecutor(CROWD) as pool:
        answers = list(pool.map(lambda _: ask(site, "zero"), range(CROWD)))
    assert [] == [each.problem for each in answers if each.problem], site.report()
    (replica,) = site.replicas("zero")
    assert {replica.job_id} == {job.id for job in site.own_jobs()}
    assert [(0, 1, "Woken")] == [(each["from"], each["to"], each["reason"]) for each in history(site, "zero")]

    submitted = float(calls.read_text().split()[earlier]) - began
    found = _LISTENS.search((site.shared / "replicas" / replica.name / "job.log").read_text())
    assert found is not None
    listens = datetime.datetime.fromisoformat(found[1]).replace(tzinfo=datetime.UTC).timestamp() - began
    first, last = min(each.at for each in answers) - began, max(each.at for each in answers) - began
    record_property(
        "figures",
        f"{CROWD} requests to a model at zero: first request to sbatch {submitted:.2f} s, Slurm and the engine "
        f"{listens - submitted:.2f} s, engine listens to first answer {first - listens:.2f} s, to the last {last - listens:.2f} s; "
        f"ours {submitted + first - listens:.2f} s",
    )


def is_listed(site: Installation, model: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    try:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {site.key}"})
        return model in {each["id"] for each in json.loads(connection.getresponse().read())["data"]}
    finally:
        connection.close()
