"""How long a replica takes from the apply to its first token, step by step. Pure: the facts are those of the controller and of the job's log."""

import dataclasses
import datetime
import json
import re
from collections.abc import Mapping
from typing import Any

from llmop.domain import times

# In order. What each means is in docs/howto/measure-models.md.
STEPS = ("replica", "submitted", "running", "started", "listening", "generated", "ready", "answered")

# Lines of the agent in the job's log (agent.py, `say`), by the node's clock.
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z agent: (.*)")
_BEGINNINGS = {
    "running": "job ",
    "started": "engine started on ",
    "listening": "engine listens on ",
    "generated": "ready at ",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Startup:
    """One replica's. `steps` are seconds since the apply was sent, which was `at` (RFC 3339), those of STEPS that are known; `job` is the
    id of its job, `image` is "" without a container.
    """

    deployment: str
    image: str
    at: str
    job: str
    steps: Mapping[str, float]


def of_log(text: str) -> dict[str, float]:
    """When the steps that happen on the node were done, epoch seconds; the first time of each, so that a restart does not count."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not (parts := _LINE.fullmatch(line)):
            continue
        for step, beginning in _BEGINNINGS.items():
            if parts[2].startswith(beginning):
                at = datetime.datetime.fromisoformat(parts[1]).replace(tzinfo=datetime.UTC)
                found.setdefault(step, at.timestamp())
    return found


def of_replica(item: Any) -> dict[str, float]:
    """When the controller made the replica and when it took it for ready, epoch seconds."""
    made = item.metadata.creation_time
    found = {"replica": made.seconds + made.nanos / 1e9}
    ready_at = json.loads(item.status_json).get("readyAt")
    if ready_at:
        found["ready"] = times.from_rfc3339(ready_at)
    return found


def copy(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One replica of a deployment, as a deployment and a model of its own."""
    left_out = ("paused", "restartedAt", "scaling")
    spec = {key: value for key, value in manifest["spec"].items() if key not in left_out}
    model = {**spec.get("model", {}), "name": name}
    return {
        **manifest,
        "metadata": {**manifest["metadata"], "name": name},
        "spec": {**spec, "replicas": 1, "model": model},
    }


def startup(
    deployment: str, image: str, job: str, applied_at: float, moments: Mapping[str, float]
) -> Startup:
    moment = datetime.datetime.fromtimestamp(applied_at, datetime.UTC)
    steps = {step: round(moments[step] - applied_at, 4) for step in STEPS if step in moments}
    return Startup(
        deployment=deployment, image=image, at=moment.isoformat(timespec="microseconds"), job=job, steps=steps
    )
