"""Reading the status of objects of the API."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from llmop.domain import resources, rollouts


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """An object as waiting sees it."""

    kind: str
    name: str
    generation: int
    deleting: bool
    spec: Mapping[str, Any]
    status: Mapping[str, Any]

    def condition(self, condition_type: str) -> Mapping[str, Any]:
        """The condition of that type in any case, {} when it is absent or about an older generation."""
        for each in self.status.get("conditions") or ():
            if str(each.get("type", "")).lower() == condition_type.lower():
                return dict(each) if int(each.get("observedGeneration") or 0) >= self.generation else {}
        return {}

    @property
    def is_current(self) -> bool:
        """Whether the controller has looked at this generation."""
        return int(self.status.get("observedGeneration") or 0) >= self.generation

    @property
    def stalled(self) -> str:
        """Why it will not get on by itself; "" when it may."""
        condition = self.condition("Stalled")
        return _sentence(condition) if condition.get("status") == "True" else ""

    @property
    def is_ready(self) -> bool:
        """Objects that have no Ready condition are as ready as they get."""
        if self.kind != resources.MODEL_DEPLOYMENT:
            return True
        return self.is_current and self.condition("Ready").get("status") == "True"

    def progress(self) -> str:
        """One line: how far a deployment is and what holds it up; "" for other kinds."""
        if self.kind != resources.MODEL_DEPLOYMENT:
            return ""
        if not self.is_current:
            return "waiting for the controller to look at it"
        wanted = rollouts.wanted(self.spec, self.status)
        parts = [f"{self.status.get('readyReplicas') or 0}/{wanted} ready"]
        if self.status.get("pendingReplicas"):
            parts.append(f"{self.status['pendingReplicas']} pending")
        blocking = self.condition("CapacityAvailable")
        if blocking.get("status") != "False":
            blocking = self.condition("Ready")
        text = ", ".join(parts)
        if blocking.get("reason") == "AwaitingGateways":  # nothing holds it up, and it is over in a moment
            text += ", gateways are taking over the addresses"
        elif blocking.get("status") != "True" and blocking:
            text += f": {_sentence(blocking)}"
        start = (self.status.get("pending") or {}).get("estimatedStartTime")
        return f"{text} (estimated start {start})" if start else text

    def failure(self) -> list[str]:
        """The last failure and the end of its log, as lines; nothing when the status is about an older generation."""
        last = self.status.get("lastFailure") or {}
        if not last or not self.is_current:
            return []
        where = f" on {last['node']}" if last.get("node") else ""
        code = f" (exit code {last['exitCode']})" if last.get("exitCode") is not None else ""
        lines = [
            f"last failure{where}: {last.get('reason', 'Unknown')}{code}: {last.get('message', '')}".rstrip(
                ": "
            )
        ]
        return lines + [f"  | {line}" for line in last.get("logTail") or ()]


def state(item: Any) -> State:
    return State(
        kind=item.kind,
        name=item.metadata.name,
        generation=item.metadata.generation,
        deleting=item.metadata.HasField("deletion_time"),
        spec=json.loads(item.spec_json),
        status=json.loads(item.status_json),
    )


def _sentence(condition: Mapping[str, Any]) -> str:
    reason, message = condition.get("reason") or "Unknown", condition.get("message") or ""
    return f"{reason}: {message}" if message else str(reason)
