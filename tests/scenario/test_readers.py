"""No option that nobody reads: of every object that a manifest becomes, each field is read by somebody who acts on it.

`tests/unit/manifest/test_reach.py` says that a field of a manifest arrives in one of these objects; this says that it is read there. Both
together: what a user writes has a reader.
"""

import asyncio
import dataclasses
import json
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from tests.unit.manifest.pairs import CONVERT, PAIRS
from tests.unit.reconciler.test_artifacts import Bench
from tests.unit.reconciler.test_hostile_texts import MANIFESTS, prepared

from llmop.artifacts import order
from llmop.clock import SystemClock
from llmop.domain import (
    assistant,
    client,
    deployment,
    fences,
    profile,
    resources,
    runtime,
    scaling,
    site,
    staging,
    tribunal,
)
from llmop.gateway import operations
from llmop.gateway.fleet import Fleet
from llmop.gateway.keys import KeyRing
from llmop.gateway.limiter import Limiter
from llmop.gateway.metrics import Counts
from llmop.manifest import admit, references
from llmop.planner import autoscale, compute, schedules, virtual
from llmop.reconciler import staging_jobs
from llmop.rpc import tables
from llmop.testing import builders, simulation
from llmop.workloads import chat_routes
from llmop.workloads.answers import Answer
from llmop.workloads.retrieval import search, values

CLASSES = (
    deployment.DeploymentSpec,
    deployment.Template,
    deployment.SlurmOptions,
    runtime.Runtime,
    runtime.Warmup,
    runtime.Metrics,
    profile.Profile,
    site.Site,
    site.Allowed,
    site.Staging,
    scaling.Scaling,
    scaling.Metric,
    scaling.Direction,
    scaling.Policy,
    scaling.Schedule,
    client.ClientKey,
    client.Limits,
    assistant.Assistant,
    tribunal.Tribunal,
    tribunal.Drafter,
    tribunal.Member,
    tribunal.Prompts,
)
# These copy or compare whatever is there.
NO_READERS = (
    "dataclasses",
    "copy",
    "llmop.manifest.convert",
    "llmop.rpc.convert",
    "llmop.gateway.table",
    "llmop.testing.",
    "tests.",
)
JOB_ORDER = order.Order(reference="hf://team/model@main", digest="b" * 40, shared_dir="/s")
IN_CODE_OF_DATACLASSES = "<string>"
READ_ELSEWHERE = {
    "Template.restarted_at",  # a difference between two templates, which is what it is for
    "ClientKey.priority",  # whose turn it is among those that wait, and nobody waits in this version yet
    "Runtime.engine",  # for people: `llmctl get sr` shows it
}


class Watched:
    """Stands in front of a field of a class with slots, and writes down who reads it."""

    def __init__(self, field: Any, name: str, readers: dict[str, set[str]]) -> None:
        self._field, self._name, self._readers = field, name, readers

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        frame = sys._getframe(1)
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(NO_READERS) and frame.f_code.co_filename != IN_CODE_OF_DATACLASSES:
            self._readers.setdefault(self._name, set()).add(module)
        return self._field.__get__(instance, owner)

    def __set__(self, instance: object, value: Any) -> None:
        self._field.__set__(instance, value)


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The modules that have read a field, by "Class.field"."""
    found: dict[str, set[str]] = {}
    for each in CLASSES:
        for field in dataclasses.fields(each):
            name = f"{each.__name__}.{field.name}"
            monkeypatch.setattr(each, field.name, Watched(each.__dict__[field.name], name, found))
    return found


def scale(which: int) -> None:
    """A load that rises and falls, as the autoscaler of a deployment with every field of scaling sees it."""
    (specs,) = [pair for pair in PAIRS if "scaling" in pair[1]]
    document = {
        "apiVersion": "llmop/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "x"},
        "spec": specs[1 + which],
    }
    deployed = CONVERT["ModelDeployment"](admit.admit(document, namespace=""))
    bounds = deployed.spec.scaling
    assert any(schedules.floor(bounds, hour * 3600) for hour in (7.5, 8.5))
    memory = autoscale.remember(1, 0.0, (autoscale.Change(at=0.0, before=1, after=2),))
    samples = []
    for now in range(0, 600, 2):
        samples.append(autoscale.Load(at=float(now), in_flight=50 if 100 < now < 200 else 0, queued=0))
        fleet = autoscale.Fleet(ready=1, on_the_way=0)
        desired = 2 if 100 < now < 400 else 1
        made = autoscale.decide(bounds, desired, samples, memory, fleet, None, float(now))
        memory = made.memory
        seen = builders.observed(scaling=made)
        compute.plan(builders.desired(scaling=bounds), seen, builders.names())


def objects(which: int) -> dict[str, Any]:
    """One object of each kind with every field in it."""
    made = {}
    for kind, *specs in reversed(PAIRS):
        document = {
            "apiVersion": "llmop/v1alpha1",
            "kind": kind,
            "metadata": {"name": "x"},
            "spec": specs[which],
        }
        made[kind] = CONVERT[kind](admit.admit(document, namespace=""))
    return made


def live(which: int) -> None:
    """What applying, staging and submitting ask of these objects, beside what an installation asks of simple ones."""
    made = objects(which)
    wanted, engine = made["ModelDeployment"], made["ServingRuntime"]
    references.check(
        wanted,
        {wanted.spec.template.runtime: engine},
        {wanted.spec.template.profile: made["ResourceProfile"]},
        {references.cluster_of(wanted.spec.template, made["ResourceProfile"]): made["Cluster"]},
    )
    staging.wanted(engine, wanted.spec.template)
    asyncio.run(stage(made["Cluster"]))
    let_in(made["APIKey"])
    references.check_tribunal(made["Tribunal"], (), ())
    for kind in resources.VIRTUAL:
        virtual.model(kind, made[kind], 0.0, "")
    asyncio.run(sit(made["Tribunal"]))
    references.check_assistant(made["Assistant"], (), ())
    asyncio.run(look_up(made["Assistant"]))


def let_in(key: client.ClientKey) -> None:
    """What a gateway asks of a key."""
    with tempfile.TemporaryDirectory() as folder:
        KeyRing(Path(folder) / "keys", 0.0).grant((key,), 0.0)
    operations.is_shown_to(key)
    limiter = Limiter()
    limiter.grant((key,), 0.0)
    asyncio.run(ask(key, limiter))


async def ask(key: client.ClientKey, limiter: Limiter) -> None:
    Fleet(Counts(), asyncio.get_running_loop()).models_for(key)
    meter = limiter.meter(key.name)
    for _ in range(2):
        if meter is not None:
            meter.reserve(1, 0.0)


async def sit(panel: tribunal.Tribunal) -> None:
    """Asks it once, in a stream; critics say something usable, and the judge nothing."""

    class Members:
        async def ask(self, url: str, body: dict[str, Any], key: str | None = None) -> Answer:
            text = body["messages"][-1]["content"]
            labels = sorted(set(re.findall('<draft id="(.)">', text)))
            rows = {label: {"score": 5, "findings": []} for label in labels}
            says = json.dumps({"reviews": rows}) if "<conversation>" in text else "" if labels else "a draft"
            choice = {"message": {"content": says}, "finish_reason": "stop"}
            return Answer(200, json.dumps({"choices": [choice]}).encode())

    class Known:
        def has(self, name: str) -> bool:
            return False

        async def find(self, name: str) -> tribunal.Tribunal:
            return panel

    service: Any = SimpleNamespace(people=Members(), virtual=Known(), clock=SystemClock())
    app = Starlette(routes=chat_routes.routes(service))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://workloads") as client:
        asked = {"model": "x", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
        assert "a draft" in (await client.post("/v1/tribunal", json=asked)).text or not panel.falls_back


async def look_up(librarian: assistant.Assistant) -> None:
    """Asks it twice: something is found, and nothing is."""

    class Known:
        def has(self, name: str) -> bool:
            return True

        async def find(self, name: str) -> assistant.Assistant:
            return librarian

    class Stores:
        async def find(self, name: str) -> Any:
            return SimpleNamespace(model="embeddings")

    class Model:
        async def ask(self, url: str, body: dict[str, Any], key: str | None = None) -> Answer:
            choice = {"message": {"content": body["messages"][-1]["content"]}, "finish_reason": "stop"}
            return Answer(200, json.dumps({"choices": [choice]}).encode())

    class Search:
        async def find(
            self, stores: Any, texts: list[str], most: int, least: float, wanted: Any
        ) -> search.Results:
            found = values.Found("file-1", "a.md", {}, None, (), "a passage", 0.5)
            return search.Results([found] if texts == ["hello"] else [], 1)

    service: Any = SimpleNamespace(
        people=Model(), virtual=Known(), stores=Stores(), search=Search(), clock=SystemClock()
    )
    app = Starlette(routes=chat_routes.routes(service))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://workloads") as client:
        for question in ("hello", "goodbye"):
            asked = {"model": librarian.name, "messages": [{"role": "user", "content": question}]}
            answer = (await client.post("/v1/chat/completions", json=asked)).json()
            assert answer["llmop"]["assistant"]["found"] is (question == "hello")


def stage_in_a_job() -> None:
    """With every option of such jobs."""
    for kind, spec, _ in PAIRS:
        if spec.get("staging", {}).get("where") == "Job":
            document = {"apiVersion": "llmop/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
            where = CONVERT[kind](admit.admit(document, namespace=""))
            staging_jobs.request("x", JOB_ORDER, where, fences.STANDARD)


async def stage(where: site.Site) -> None:
    bench = Bench()
    bench.where = where
    await bench.keep("", secrets=("a.env",))
    for task in bench.tasks:
        task.cancel()
    await asyncio.gather(*bench.tasks, return_exceptions=True)


def test_every_field_has_a_reader(readers: dict[str, set[str]]) -> None:
    played = simulation.simulate(0, simulation.Setting(hours=0.3, fault_every_s=25, user_every_s=60))
    assert not played.violations
    for which in (0, 1):
        live(which)
        scale(which)
    prepared("Cluster", MANIFESTS["Cluster"])
    stage_in_a_job()

    fields = {f"{each.__name__}.{field.name}" for each in CLASSES for field in dataclasses.fields(each)}
    assert READ_ELSEWHERE == fields - readers.keys()


def test_people_are_shown_which_engine_a_runtime_is() -> None:
    made = resources.Resource(kind="ServingRuntime", name="x", spec={"engine": "an-engine"})

    assert "an-engine" in tables.cells(made, 0.0)
